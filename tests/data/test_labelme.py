"""JSON files of labelme."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from ppl.data import check_images, open_dataset
from ppl.errors import PPLFileNotFoundError, PPLValueError


def shape(label, points, kind="polygon"):
    return {"label": label, "points": points, "shape_type": kind, "group_id": None, "flags": {}}


def box(left, top, right, bottom):
    return [[left, top], [right, top], [right, bottom], [left, bottom]]


def write(folder, name, shapes, *, image=None, size=(10, 20), flags=None):
    folder.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size[::-1]).save(folder / (image or f"{name}.jpg"))
    content = {"version": "5.4.1", "flags": flags or {}, "shapes": shapes, "imagePath": image or f"{name}.jpg"}
    content |= {"imageData": None, "imageHeight": size[0], "imageWidth": size[1]}
    (folder / f"{name}.json").write_text(json.dumps(content))


def test_shapes_are_tags_and_masks_in_their_order(tmp_path):
    shapes = [
        shape("dog", box(0, 0, 20, 10)),
        shape("cat", [[2, 1], [6, 5]], "rectangle"),
        shape("__ignore__", box(10, 0, 12, 10)),
        shape("_background_", box(14, 0, 16, 10)),
        shape("tail", [[1, 1], [2, 2]], "line"),
    ]
    write(tmp_path, "a", shapes)
    write(tmp_path, "b", [])
    dataset = open_dataset(tmp_path)
    assert dataset.classes == ("cat", "dog", "tail")
    assert [(sample.image_id, sample.labels) for sample in dataset] == [("a", (0, 1, 2)), ("b", ())]
    expected = np.full((10, 20), 2)
    expected[1:5, 2:6] = 1
    expected[:, 10:12], expected[:, 14:16] = 255, 0
    assert np.array_equal(dataset[0].read_mask(), expected)
    assert not dataset[1].read_mask().any()


def test_a_circle_has_its_area(tmp_path):
    write(tmp_path, "a", [shape("cell", [[50, 40], [50, 70]], "circle")], size=(90, 100))
    mask = open_dataset(tmp_path)[0].read_mask()
    assert mask.sum() == pytest.approx(np.pi * 30**2, rel=0.01)


def test_a_shape_of_another_kind_leaves_its_image_without_a_mask(tmp_path):
    write(tmp_path, "a", [shape("cat", [[0, 0], [4, 4]], "mask")])
    write(tmp_path, "b", [shape("cat", box(0, 0, 4, 4))])
    with pytest.warns(UserWarning, match="1 of 2 images have no mask, because a shape is not a polygon, .*: 'a'"):
        dataset = open_dataset(tmp_path)
    assert [sample.labels for sample in dataset] == [(0,), (0,)]
    assert dataset[0].mask is None and dataset[1].mask is not None


def test_flags_are_tags(tmp_path):
    write(tmp_path, "a", [], flags={"cat": True, "dog": False})
    write(tmp_path, "b", [shape("dog", box(0, 0, 4, 4))])
    with pytest.warns(UserWarning, match="1 of 2 images have no mask"):
        assert [sample.labels for sample in open_dataset(tmp_path)] == [(0,), (1,)]


def test_folders_are_splits_and_labels_txt_sets_the_classes(tmp_path):
    write(tmp_path / "train", "a", [shape("cat", box(0, 0, 4, 4))])
    write(tmp_path / "val", "b", [shape("dog", box(0, 0, 4, 4))], image="other name.png")
    (tmp_path / "labels.txt").write_text("__ignore__\n_background_\ndog\ncat\n")
    with pytest.warns(UserWarning, match="no image is tagged 'cat'"):
        dataset = open_dataset(tmp_path, "val")
    assert dataset.classes == ("dog", "cat")
    assert dataset.image_ids == ("val/other name",)
    with pytest.raises(PPLFileNotFoundError, match="no split 'test'; there are: train, val"):
        open_dataset(tmp_path, "test")
    (tmp_path / "labels.txt").write_text("dog\ncta\n")
    with pytest.raises(PPLValueError, match=r"a\.json: label 'cat' is not in .*did you mean 'cta'"):
        open_dataset(tmp_path)


def test_another_size_names_the_file_and_both_sizes(tmp_path):
    write(tmp_path, "a", [shape("cat", box(0, 0, 4, 4))])
    write(tmp_path, "b", [])
    Image.new("RGB", (10, 5)).save(tmp_path / "a.jpg")
    with pytest.warns(UserWarning, match=r"a\.json says that .*a\.jpg is \(10, 20\) but the image is \(5, 10\)"):
        assert [file.image_id for file in check_images(open_dataset(tmp_path))[1]] == ["a"]


def test_a_damaged_file_is_named(tmp_path):
    write(tmp_path, "a", [shape("cat", box(0, 0, 4, 4))])
    (tmp_path / "b.json").write_text('{"version": "5", "shapes": [{"label": "cat"}]}')
    with pytest.raises(PPLValueError, match=r"b\.json is not a whole labelme file \(KeyError: 'points'\)"):
        open_dataset(tmp_path)
