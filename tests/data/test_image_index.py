"""Names of images as other tools and other machines write them."""

from __future__ import annotations

import json

import pytest
from PIL import Image

from ppl.data import read_coco, read_folder
from ppl.data.image_index import ImageIndex
from ppl.errors import PPLFileNotFoundError


@pytest.fixture
def folder(tmp_path):
    for name in ("a.jpg", "2019/beach.v2.png", "2019/b.jpg", "2020/b.jpg", "one two.jpg"):
        path = tmp_path / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 3)).save(path)
    return tmp_path / "images"


FOUND = {
    "a.jpg": "a",
    "a": "a",
    "./a.jpg": "a",
    "images/a.jpg": "a",
    r"images\a.jpg": "a",
    r"C:\Users\me\images\a.jpg": "a",
    "../../media/upload/1/a.jpg": "a",
    "/home/me/images/a.jpg": "a",
    "a.png": "a",
    "beach.v2.png": "2019/beach.v2",
    r"photos\2019\beach.v2.png": "2019/beach.v2",
    "photos/2020/b.jpg": "2020/b",
    "/data/local-files/?d=images/one%20two.jpg": "one two",
}


@pytest.mark.parametrize("name", FOUND)
def test_separators_and_prefixes_are_normalised(folder, name):
    index = ImageIndex(folder)
    image_id, path = index.find(name, "line 1")
    assert image_id == FOUND[name]
    assert path == index.images[image_id] and path.is_file()
    index.check("error")


def test_a_base_name_that_two_images_have_is_not_guessed(folder):
    index = ImageIndex(folder)
    index.find("elsewhere/b.jpg", "list.txt line 7")
    with pytest.raises(PPLFileNotFoundError, match=r"list\.txt line 7: .*images has no file for 'elsewhere/b\.jpg'"):
        index.check("error")


def test_many_missing_images_are_one_line_with_a_count_and_three_examples(folder):
    index = ImageIndex(folder)
    for number in range(40):
        index.find(f"x{number}.jpg", f"list.txt line {number + 1}")
    with pytest.raises(PPLFileNotFoundError) as caught:
        index.check("error")
    message = str(caught.value)
    assert "40 of 40 listed images have no file" in message
    assert "'x0.jpg', 'x1.jpg', 'x2.jpg' and 37 more" in message
    assert "list.txt line 1" in message and "\n" not in message


def test_a_table_from_windows_is_read(folder):
    (folder.parent / "labels.csv").write_text("image,labels\nimages\\a.jpg,cat\nC:\\x\\images\\2020\\b.jpg,dog\n")
    (folder.parent / "train.txt").write_text("D:\\images\\2020\\b.jpg\n")
    dataset = read_folder(folder.parent)
    assert dataset.image_ids == ("a", "2020/b")
    assert read_folder(folder.parent, "train").image_ids == ("2020/b",)


@pytest.mark.parametrize("prefix", ["images\\", "images/", "C:\\tmp\\images\\", "../../media/upload/1/"])
def test_a_coco_file_with_paths_is_read(folder, prefix):
    content = {
        "images": [{"id": 1, "file_name": f"{prefix}a.jpg", "height": 3, "width": 4}],
        "categories": [{"id": 1, "name": "cat"}],
        "annotations": [{"image_id": 1, "category_id": 1, "segmentation": [[0, 0, 4, 0, 4, 3, 0, 3]]}],
    }
    (folder.parent / "result.json").write_text(json.dumps(content))
    (sample,) = read_coco(folder.parent)
    assert sample.image_id == "a"
    assert sample.read_image().size == (4, 3)
    assert sample.read_mask().tolist() == [[1] * 4] * 3
