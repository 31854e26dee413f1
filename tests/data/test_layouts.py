from __future__ import annotations

import re
from pathlib import Path

import pytest
from PIL import Image

from ppl.data import LAYOUTS, Sample, TaggedImages, open_dataset, read_images, register_layout
from ppl.errors import PPLValueError


def test_a_folder_in_no_known_layout_names_the_files_of_all_layouts(tmp_path):
    (tmp_path / "pictures").mkdir()
    with pytest.raises(FileNotFoundError, match=r"labels\.csv \(folder\), .* JPEGImages \(voc\), .* holds pictures"):
        open_dataset(tmp_path)
    (tmp_path / "train.csv").touch()
    with pytest.raises(FileNotFoundError, match=r"; if train\.csv is the table of tags, save it as labels\.csv"):
        open_dataset(tmp_path)
    (tmp_path / "set.zip").touch()
    with pytest.raises(FileNotFoundError, match=r"set\.zip is not a folder; unpack it"):
        open_dataset(tmp_path / "set.zip")
    with pytest.raises(ValueError, match="no layout named 'png'"):
        open_dataset(tmp_path, layout="png")


def test_a_named_layout_is_taken_without_looking_for_others(root):
    assert len(open_dataset(root, layout="folder")) == 3
    with pytest.raises(FileNotFoundError, match="JPEGImages"):
        open_dataset(root, layout="voc")


@pytest.fixture
def registry(monkeypatch):
    """The layouts, which a test may add to."""
    monkeypatch.setattr(LAYOUTS, "_parts", dict(LAYOUTS))
    return LAYOUTS


def read_notes(root, split=None, *, missing="error"):
    names = (root / f"{split or 'notes'}.md").read_text().split()
    return TaggedImages(("x",), tuple(Sample(name, root / f"{name}.png", (0,)) for name in names), f"{root.name}")


def test_a_layout_from_outside_is_read_by_name_and_recognised(tmp_path, registry):
    (tmp_path / "notes.md").write_text("a b\n")
    (tmp_path / "val.md").write_text("c\n")
    register_layout("notes", read_notes, recognise=lambda root: (root / "notes.md").is_file(), files="notes.md")
    assert list(registry)[-1] == "notes"
    for layout in ("notes", "auto"):
        assert open_dataset(tmp_path, layout=layout).image_ids == ("a", "b")
        assert open_dataset(tmp_path, "val", layout).image_ids == ("c",)
    (tmp_path / "notes.md").unlink()
    with pytest.raises(FileNotFoundError, match=r"notes\.md \(notes\), but holds val\.md"):
        open_dataset(tmp_path)


def test_a_layout_without_signs_is_read_only_by_name(tmp_path, registry):
    (tmp_path / "notes.md").write_text("a\n")
    register_layout("notes", read_notes)
    assert open_dataset(tmp_path, layout="notes", value_range=4095)[0].value_range == 4095
    with pytest.raises(FileNotFoundError, match="in no known layout"):
        open_dataset(tmp_path)


def test_names_of_layouts_are_unique(registry):
    with pytest.raises(PPLValueError, match="a layout named 'coco' exists already"):
        register_layout("coco", read_notes)
    with pytest.raises(PPLValueError, match='"auto" means that the layout is recognised'):
        register_layout("auto", read_notes)


def test_the_page_has_every_layout():
    page = (Path(__file__).parents[2] / "docs" / "data.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| `(\w+)` \|", page.split("\n## ")[0], re.MULTILINE)
    assert len(listed) == 7
    assert listed == list(LAYOUTS)[:7]  # examples that run in the same process may have added others


def test_a_single_file_is_a_folder_of_one_picture(tmp_path):
    Image.new("RGB", (4, 3)).save(tmp_path / "a.jpg")
    (sample,) = read_images(tmp_path / "a.jpg", ("cat",))
    assert (sample.image_id, sample.read_image().size) == ("a", (4, 3))


@pytest.mark.parametrize("option", [{"zero": "ignored"}, {"white": "cat"}, {"untagged": "no"}])
def test_a_value_without_a_meaning_is_refused(root, option):
    (name, value), *_ = option.items()
    with pytest.raises(PPLValueError, match=f"{name}='{value}' is not understood; use "):
        open_dataset(root, **option)
