from __future__ import annotations

import pytest
from PIL import Image

from ppl.errors import PPLError
from ppl.io import list_images
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


def test_hidden_files_and_folders_are_passed_over(tmp_path):
    for name in ("a.png", ".b.png", ".ipynb_checkpoints/a.png", "sub/.cache/c.png"):
        picture(tmp_path / name)
    assert list(list_images(tmp_path)) == ["a"]


def test_a_hidden_folder_that_is_named_itself_is_read(tmp_path):
    picture(tmp_path / ".cache" / "a.png")
    assert list(list_images(tmp_path / ".cache")) == ["a"]


def test_a_folder_is_no_picture_whatever_its_name(tmp_path):
    picture(tmp_path / "pages.tif" / "1.png")
    assert list(list_images(tmp_path)) == ["pages.tif/1"]


def test_linked_folders_are_followed_but_not_in_circles(tmp_path):
    picture(tmp_path / "elsewhere" / "a.png")
    picture(tmp_path / "images" / "b.png")
    (tmp_path / "images" / "linked").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (tmp_path / "elsewhere" / "back").symlink_to(tmp_path / "images", target_is_directory=True)
    (tmp_path / "images" / "self").symlink_to(tmp_path / "images", target_is_directory=True)
    assert list(list_images(tmp_path / "images")) == ["b", "linked/a"]


def test_a_folder_that_cannot_be_read_is_named(tmp_path, monkeypatch):
    import os

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


def test_masks_are_pngs_whatever_the_case_of_their_ending(tmp_path):
    for name in ("a.PNG", "sub/b.png", "c.jpg", f"{AS_ON_A_MAC}.png"):
        picture(tmp_path / name)
    masks = list_masks(tmp_path, ["a"])
    assert list(masks) == ["a", CAFE, "sub/b"]
    assert masks["a"].name == "a.PNG"
    assert list_masks(tmp_path / "nowhere", ["a"]) == {}
