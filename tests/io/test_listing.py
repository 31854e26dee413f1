from __future__ import annotations

import os
import warnings
from pathlib import Path

import pytest
from PIL import Image, features

from ppl.errors import PPLError
from ppl.io import list_images, read_image
from ppl.io.listing import list_masks


def picture(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (2, 2)).save(path)


def test_pictures_of_all_sub_folders_come_in_the_order_of_their_paths(tmp_path):
    for name in ("b.png", "a.x/c.jpg", "a.JPG", "a/d.webp"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "notes.txt").write_text("")
    assert list(list_images(tmp_path)) == ["a/d", "a", "a.x/c", "b"]


def test_hidden_files_and_folders_are_ignored(tmp_path):
    for name in ("a.png", ".b.png", ".ipynb_checkpoints/a.png", "sub/.cache/c.png"):
        picture(tmp_path / name)
    assert list(list_images(tmp_path)) == ["a"]


def test_a_hidden_folder_that_is_named_itself_is_read(tmp_path):
    picture(tmp_path / ".cache" / "a.png")
    assert list(list_images(tmp_path / ".cache")) == ["a"]


def test_a_folder_is_no_picture_whatever_its_name(tmp_path):
    picture(tmp_path / "pages.tif" / "1.png")
    assert list(list_images(tmp_path)) == ["pages.tif/1"]


def test_links_to_folders_are_followed_but_not_in_circles(tmp_path):
    picture(tmp_path / "elsewhere" / "a.png")
    picture(tmp_path / "images" / "b.png")
    (tmp_path / "images" / "linked").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (tmp_path / "elsewhere" / "back").symlink_to(tmp_path / "images", target_is_directory=True)
    (tmp_path / "images" / "self").symlink_to(tmp_path / "images", target_is_directory=True)
    assert list(list_images(tmp_path / "images")) == ["b", "linked/a"]


def test_a_folder_that_cannot_be_read_is_named(tmp_path, monkeypatch):
    def denied(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "scandir", denied)
    with pytest.raises(PPLError, match="cannot be read: Permission denied; check"):
        list_images(tmp_path)


CAFE, AS_ON_A_MAC = "caf\u00e9", "cafe\u0301"


def test_names_come_in_one_form_and_files_as_they_are_on_the_disk(tmp_path):
    (tmp_path / f"{AS_ON_A_MAC}.jpg").write_bytes(b"")
    (path,) = list_images(tmp_path).values()
    assert list(list_images(tmp_path)) == [CAFE]
    assert path.name == f"{AS_ON_A_MAC}.jpg"
    assert path.exists()


def test_two_names_that_differ_in_how_their_accents_are_stored_are_refused(tmp_path):
    (tmp_path / f"{CAFE}.jpg").write_bytes(b"")
    if (tmp_path / f"{AS_ON_A_MAC}.jpg").exists():
        pytest.skip("this disk takes the two for one")
    (tmp_path / f"{AS_ON_A_MAC}.jpg").write_bytes(b"")
    with pytest.raises(PPLError, match="accents stored in two ways; rename"):
        list_images(tmp_path)


def test_endings_of_masks_may_be_in_capitals_and_lossy_formats_are_named(tmp_path):
    for name in ("a.PNG", "sub/b.png", "c.jpg", f"{AS_ON_A_MAC}.png"):
        picture(tmp_path / name)
    with pytest.warns(UserWarning, match=r"1 mask left out, because the format is lossy .*: 'c\.jpg'; draw again"):
        masks = list_masks(tmp_path, ["a"])
    assert list(masks) == ["a", CAFE, "sub/b"]
    assert masks["a"].name == "a.PNG"
    assert list_masks(tmp_path / "nowhere", ["a"]) == {}


def test_masks_in_other_lossless_formats_are_read(tmp_path):
    for name in ("a.tif", "b.bmp", "c.GIF"):
        picture(tmp_path / name)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert list(list_masks(tmp_path, ["a", "b", "c"])) == ["a", "b", "c"]


def test_masks_of_no_image_are_counted_and_named(tmp_path):
    for name in ("a.png", "b_mask.png", "c_mask.png", "d_mask.png", "e_mask.png"):
        picture(tmp_path / name)
    with pytest.warns(UserWarning, match="4 of 5 masks left out, because no image has the name: .* and 1 more"):
        list_masks(tmp_path, ["a", "b"])


@pytest.mark.parametrize("name", ["a.jfif", "a.JPG", "a.jpe", "a.TIFF", "a.avif"])
def test_every_ending_that_pillow_reads_is_a_picture(tmp_path, name):
    if name.endswith("avif") and not features.check("avif"):
        pytest.skip("this Pillow is built without AVIF")
    picture(tmp_path / name)
    assert list(list_images(tmp_path)) == ["a"]
    assert read_image(tmp_path / name).size == (2, 2)


def test_pictures_that_pillow_cannot_read_are_counted_and_named(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "registered_extensions", lambda: {".png": "PNG"})
    for name in ("a.png", "b.heic", "c.HEIC", "d.avif", "e.avif"):
        (tmp_path / name).write_bytes(b"")
    with pytest.warns(UserWarning, match=r"Pillow cannot read 4 files, .* 'b\.heic', 'c\.HEIC', 'd\.avif' and 1 more"):
        assert list(list_images(tmp_path)) == ["a"]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such names")
def test_a_name_that_is_no_text_is_named(tmp_path):
    try:
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.png")).write_bytes(b"")
    except OSError:
        pytest.skip("this disk takes no such names")
    with pytest.raises(PPLError, match=r"a file whose name is not valid UTF-8: 'caf\\udce9\.png'; rename the file"):
        list_images(tmp_path)
