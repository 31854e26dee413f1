from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from ppl.errors import PPLValueError
from ppl.report import GridRow, class_colours, fonts, image_grid


def picture(colour, height=30, width=60):
    return np.full((height, width, 3), colour, np.uint8)


def test_every_cell_and_legend_colour_is_on_the_grid(tmp_path):
    rows = [
        GridRow("first", [picture((1, 2, 3)), Image.new("RGB", (20, 80), (4, 5, 6))]),
        GridRow("second", [picture((7, 8, 9)), None]),
    ]
    grid = image_grid(
        rows, ["image", "mask"], tmp_path / "grid.png", classes=["cat", "dog"], title="A grid", cell=(80, 120)
    )
    with Image.open(tmp_path / "grid.png") as saved:
        pixels = np.asarray(saved)
    assert np.array_equal(pixels, np.asarray(grid))
    expected = [((1, 2, 3), 120 * 60), ((4, 5, 6), 20 * 80), ((7, 8, 9), 120 * 60)]
    for colour, area in expected + [(tuple(c), 256) for c in class_colours(2)]:
        assert (pixels == colour).all(-1).sum() == area


def test_long_names_and_many_classes_stay_on_the_grid():
    grid = image_grid(
        [GridRow("n" * 400, [picture(0)])], ["image"], classes=[f"class {i}" for i in range(40)], cell=(60, 200)
    )
    edge = np.asarray(grid)[:, -10:]
    assert (edge == 255).all()


@pytest.mark.parametrize(
    ("name", "start"),
    [
        ("grid.png", b"\x89PNG"),
        ("grid.jpg", b"\xff\xd8\xff"),
        ("grid.JPEG", b"\xff\xd8\xff"),
        ("grid.webp", b"RIFF"),
        ("grid.tif", b"II*\x00"),
        ("grid.pdf", b"%PDF"),
    ],
)
def test_the_suffix_names_the_format(tmp_path, name, start):
    image_grid([GridRow("a", [picture(9)])], ["image"], tmp_path / name)
    assert (tmp_path / name).read_bytes().startswith(start)


@pytest.mark.parametrize("name", ["grid.svg", "grid"])
def test_a_format_that_cannot_be_written_is_refused(tmp_path, name):
    with pytest.raises(ValueError, match=rf"{name}; its name must end in \.png, \.jpg, .*\.pdf"):
        image_grid([GridRow("a", [picture(9)])], ["image"], tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_bad_input():
    with pytest.raises(ValueError, match="0 rows"):
        image_grid([], ["image"])
    with pytest.raises(ValueError, match="'a' has 1 cells for 2 columns"):
        image_grid([GridRow("a", [None])], ["image", "mask"])


def test_a_class_name_wider_than_the_grid_is_shortened():
    grid = image_grid([GridRow("a", [picture(0)])], ["image"], classes=["n" * 300, "dog"], cell=(60, 200))
    assert (np.asarray(grid)[:, -19:] == 255).all()


def test_line_breaks_in_names_are_blanks():
    def drawn(gap):
        name = f"a{gap}b"
        return np.asarray(image_grid([GridRow(name, [picture(0)])], [name], classes=[name], title=name))

    assert np.array_equal(drawn("\n"), drawn(" "))
    assert np.array_equal(drawn("\u2029\r\n"), drawn(" "))


@pytest.mark.parametrize(("height", "width"), [(0, 5), (5, 0)])
def test_an_empty_picture_is_refused(height, width):
    with pytest.raises(PPLValueError, match=f"{width} x {height} pixels is empty"):
        image_grid([GridRow("a", [picture(0, height, width)])], ["image"])


@pytest.mark.parametrize(("suffix", "limit"), [(".jpg", 65500), (".pdf", 65500), (".webp", 16383)])
def test_a_grid_too_tall_for_its_format_is_refused(tmp_path, suffix, limit):
    rows = [GridRow("a", [picture(0, 8, 4)])] * (limit // 42 + 1)
    with pytest.raises(PPLValueError, match=rf"{suffix} holds {limit} .*\.png"):
        image_grid(rows, ["image"], tmp_path / f"grid{suffix}", cell=(8, 4))


def test_text_that_dejavu_lacks_takes_the_first_installed_font_that_has_it(monkeypatch, tmp_path):
    (tmp_path / "broken.ttf").write_bytes(b"no font")
    folder = fonts.dejavu().parent
    found = [tmp_path / "broken.ttf", folder / "cmr10.ttf", folder / "STIXGeneral.ttf"]
    monkeypatch.setattr("matplotlib.font_manager.findSystemFonts", lambda: [str(path) for path in found])
    assert fonts.installed_fonts(["cat", "Käfer", "ᶁ"]) == {"ᶁ": found[2]}
    names = ["ᶁ", "cat"]
    with_font = image_grid([GridRow("a", [picture(0)])], ["image"], classes=names)
    monkeypatch.setattr("matplotlib.font_manager.findSystemFonts", list)
    assert not np.array_equal(with_font, image_grid([GridRow("a", [picture(0)])], ["image"], classes=names))
