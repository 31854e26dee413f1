"""What a reader without sight, a mouse or JavaScript needs, found by parsing the pages."""

from __future__ import annotations

import itertools
from html.parser import HTMLParser

import numpy as np
import pytest

from ppl.report import Gallery, Picture, Report, Stages, Table, curves, write_report
from ppl.report.page import write_page
from ppl.report.parts import legend

VOID = {"meta", "link", "img", "input", "br", "hr"}


class Page(HTMLParser):
    """The elements of a page in order, as (tag, attributes); fails on tags that are not closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, tag

    def all(self, *tags):
        return [attributes for tag, attributes in self.elements if tag in tags]


def pixels(value=90):
    return np.full((30, 40, 3), value, np.uint8)


@pytest.fixture(scope="module")
def report_page(tmp_path_factory):
    stages = [Picture(title, pixels()) for title in ("image", "CAM", "ground truth")]
    drawing = curves({"a": [{"epoch": 0, "loss": 1.0}, {"epoch": 1, "loss": 0.5}]})
    parts = [
        Table("Scores", ["model", "mIoU"], [["a", 0.4], ["b", None]], "a note"),
        Gallery("Images", [Stages(name, stages, "cat") for name in ("x", "ж 猫")], "note", "CAM", ["cat", "犬"]),
        Table("Confusion", ["true", "cat"], [["cat", 1.0]], compare=None, heat=True),
        Picture("Training", drawing, "By epoch."),
        Picture("Training again", drawing),
    ]
    path = tmp_path_factory.mktemp("page") / "report.html"
    return Page(write_report(Report("run", "s", ["n"], parts, {"a": 1}), path).read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def predictions_page(tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "index.html"
    names = ["a #1", "sub/b"]
    page = write_page("predictions.html", path, title="Two", names=names, total=3, legend=legend(["cat"]))
    return Page(page.read_text(encoding="utf-8"))


@pytest.fixture(params=["report_page", "predictions_page"])
def page(request):
    return request.getfixturevalue(request.param)


def test_the_page_names_its_language_and_fits_a_phone(page):
    assert page.all("html")[0]["lang"] == "en"
    assert any("width=device-width" in (meta.get("content") or "") for meta in page.all("meta"))


def test_headings_leave_out_no_level(page):
    levels = [int(tag[1]) for tag, _ in page.elements if tag in ("h1", "h2", "h3")]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))


def test_ids_are_unique_and_every_reference_has_its_target(page):
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    for _, attributes in page.elements:
        wanted = f"{attributes.get('aria-labelledby', '')} {attributes.get('aria-describedby', '')}".split()
        wanted += [attributes["href"][1:]] if (attributes.get("href") or "").startswith("#") else []
        assert set(wanted) <= set(ids)


def test_every_picture_has_its_own_alternative_text(page):
    texts = [image["alt"] for image in page.all("img")]
    assert texts and all(texts) and len(texts) == len(set(texts))


def test_tables_have_captions_and_headings_of_rows_and_columns(report_page):
    tables, captions = report_page.all("table"), report_page.all("caption")
    assert len(tables) == len(captions) == 2
    assert {heading["scope"] for heading in report_page.all("th")} == {"col", "row"}


def test_without_javascript_every_stage_is_visible_and_nothing_is_dead(report_page):
    assert len(report_page.all("img")) == 2 * 3 + 2
    assert not any("hidden" in attributes for _, attributes in report_page.elements)
    assert not report_page.all("input", "button")  # the script makes them


def test_regions_that_scroll_can_be_reached_by_keys(report_page):
    regions = [attributes for attributes in report_page.all("div") if attributes.get("role") == "region"]
    assert len(regions) == 4  # two tables and two drawings
    assert all(region["tabindex"] == "0" and region["aria-labelledby"] for region in regions)


def test_pictures_of_any_name_are_linked(predictions_page):
    assert [image["src"] for image in predictions_page.all("img")] == ["overlays/a%20%231.jpg", "overlays/sub/b.jpg"]
