from __future__ import annotations

import pytest
from PIL import Image

from ppl.errors import PPLError
from ppl.io import list_images


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
