"""The report in headless Chromium: keys, sorting, no errors, no requests."""

from __future__ import annotations

import shutil
import sys

import numpy as np
import pytest
from browser import browser

from ppl.report import Gallery, Picture, Report, Stages, Table, write_report

PROGRAM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(PROGRAM is None or sys.platform == "win32", reason="Chromium is not installed")
STAGES = ["image", "CAM", "ground truth"]


@pytest.fixture(scope="module")
def tab(tmp_path_factory):
    with browser(PROGRAM, tmp_path_factory.mktemp("profile")) as tab:
        yield tab


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    pictures = [Picture(title, np.full((30, 40, 3), 90, np.uint8)) for title in STAGES]
    rows = [["a long name of a class " * 3, 0.2, None], ["b", 0.1, 0.5], ["c", 0.3, 0.4]]
    parts = [
        Table("Classes", ["class", "CAM", "refined"], rows),
        Gallery("Images", [Stages("x", pictures), Stages("y", [pictures[0], pictures[2]])], start="CAM"),
        Table("Confusion", ["true", *map(str, range(40))], [["c", *[0.1] * 40]], heat=True),
    ]
    return write_report(Report("run", parts=parts), tmp_path_factory.mktemp("page") / "report.html")


def shown(tab):
    """The stage of each image that is visible."""
    return tab.run(
        "[...document.querySelectorAll('.stages')].map(s => [...s.children].filter(f => f.checkVisibility())"
        ".map(f => f.textContent).join())"
    )


def test_keys_move_a_slider_which_says_its_stage(tab, page):
    tab.open(page)
    assert shown(tab) == ["CAM", "image"]  # y has no CAM
    tab.run("document.querySelector('article input').focus()")
    tab.press("ArrowRight")
    assert shown(tab) == ["ground truth", "image"]
    assert tab.run("document.activeElement.getAttribute('aria-valuetext')") == "ground truth"
    assert tab.run("document.activeElement.getAttribute('aria-label')") == "Stage of x"
    tab.press("Home")
    assert shown(tab) == ["image", "image"]


def test_one_slider_moves_all_images(tab, page):
    tab.open(page)
    tab.run("document.querySelector('section > .slider input').focus()")
    tab.press("End")
    assert shown(tab) == ["ground truth", "ground truth"]
    tab.press("ArrowLeft")
    assert shown(tab) == ["CAM", "ground truth"]  # y has no CAM and stays


def test_enter_sorts_by_a_column_and_missing_numbers_stay_last(tab, page):
    tab.open(page)
    column = "[...document.querySelectorAll('.sortable tbody tr')].map(r => r.cells[2].textContent)"
    state = "[...document.querySelectorAll('.sortable thead th')].map(h => h.getAttribute('aria-sort'))"
    tab.run("document.querySelectorAll('.sortable thead button')[2].focus()")
    tab.press("Enter")
    assert (tab.run(column), tab.run(state)) == (["40.0", "50.0", "–"], [None, None, "ascending"])
    tab.press("Enter")
    assert (tab.run(column), tab.run(state)) == (["50.0", "40.0", "–"], [None, None, "descending"])
    tab.run("document.querySelectorAll('.sortable thead button')[0].click()")
    assert tab.run(state) == ["ascending", None, None]
    assert [text[0] for text in tab.run(column.replace("[2]", "[0]"))] == ["a", "b", "c"]


def test_tab_reaches_every_control_and_the_focus_is_visible(tab, page):
    tab.open(page)
    controls = tab.run("document.querySelectorAll('button, input').length")
    assert controls == 3 + 3
    reached = set()
    for _ in range(16):
        tab.press("Tab")
        tag, outline = tab.run("(e => [e.tagName, getComputedStyle(e).outlineStyle])(document.activeElement)")
        assert tag == "BODY" or outline == "solid", tag
        reached.add(tab.run("[...document.querySelectorAll('button, input')].indexOf(document.activeElement)"))
    assert reached >= set(range(controls))


def test_a_phone_scrolls_wide_tables_and_not_the_page(tab, page):
    tab.open(page, width=400)
    assert tab.run("document.documentElement.scrollWidth") <= 400
    assert tab.run("(w => w.scrollWidth > w.clientWidth)(document.querySelectorAll('.wide')[1])")


def test_there_are_no_requests_and_no_errors(tab, page):
    tab.open(page)
    tab.run("document.querySelectorAll('button').forEach(button => button.click())")
    asked = [e["request"]["url"] for method, e in tab.events if method == "Network.requestWillBeSent"]
    assert [url for url in asked if not url.startswith("data:")] == [page.as_uri()]
    wrong = ("Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded", "Network.loadingFailed")
    assert [event for event in tab.events if event[0] in wrong] == []
