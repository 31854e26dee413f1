"""YOLO's text files, as ultralytics, Roboflow and Label Studio write them."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from ppl.data import check_images, open_dataset
from ppl.errors import PPLFileNotFoundError, PPLValueError

SQUARE = "0.1 0.2 0.6 0.2 0.6 0.8 0.1 0.8"


def add(root, image, labels, text):
    (root / image).parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (20, 10)).save(root / image)
    if text is not None:
        (root / labels).parent.mkdir(parents=True, exist_ok=True)
        (root / labels).write_text(text)


@pytest.fixture(params=["ultralytics", "roboflow"])
def yolo(tmp_path, request):
    texts = {"train/a": f"1 {SQUARE}\n0 0.1 0.2 0.2 0.2 0.2 0.4\n", "train/b": None, "valid/c": ""}
    for key, text in texts.items():
        split, name = key.split("/")
        place = "{kind}/{split}/{name}" if request.param == "ultralytics" else "{split}/{kind}/{name}"
        image, labels = (place.format(kind=kind, split=split, name=name) for kind in ("images", "labels"))
        add(tmp_path, f"{image}.jpg", f"{labels}.txt", text)
    paths = {"ultralytics": "path: /some/where\ntrain: images/train\nval: images/valid\nnames:\n  0: cat\n  1: dog\n"}
    paths["roboflow"] = "train: ../train/images\nval: ../valid/images\nnc: 2\nnames: ['cat', 'dog']\n"
    (tmp_path / "data.yaml").write_text(paths[request.param])
    return tmp_path


@pytest.mark.filterwarnings("ignore:.*no image is tagged")
def test_polygons_are_tags_and_masks(yolo):
    with pytest.warns(UserWarning, match="1 of 2 images have no mask, because they have no text file with poly"):
        dataset = open_dataset(yolo, "train")
    assert dataset.classes == ("cat", "dog")
    assert [(sample.image_id, sample.labels) for sample in dataset] == [("train/a", (0, 1)), ("train/b", ())]
    expected = np.zeros((10, 20), int)
    expected[2:8, 2:12] = 2
    mask = dataset[0].read_mask()
    assert (mask[4:] == expected[4:]).all() and (mask[2:4, 4:] == expected[2:4, 4:]).all()
    assert mask[2, 2] == 1  # the smaller polygon is drawn over the larger one
    assert check_images(dataset)[1] == []
    assert open_dataset(yolo, "val").image_ids == open_dataset(yolo, "valid").image_ids == ("val/c",)
    assert len(open_dataset(yolo)) == 3
    with pytest.raises(PPLFileNotFoundError, match="no split 'test'; there are: train, val"):
        open_dataset(yolo, "test")


@pytest.mark.filterwarnings("ignore:.*no image is tagged")
def test_boxes_are_tags_without_masks(tmp_path):
    add(tmp_path, "images/a.jpg", "labels/a.txt", "1 0.5 0.5 0.2 0.2\n")
    add(tmp_path, "images/b.jpg", "labels/b.txt", "")
    (tmp_path / "classes.txt").write_text("cat\ndog\n")
    dataset = open_dataset(tmp_path)
    assert [(s.image_id, s.labels, s.mask) for s in dataset] == [("a", (1,), None), ("b", (), None)]


def test_a_list_of_paths_is_a_split(tmp_path):
    for name in "abc":
        add(tmp_path, f"images/{name}.jpg", f"labels/{name}.txt", f"0 {SQUARE}\n" if name != "c" else "")
    (tmp_path / "train.txt").write_text("./images/a.jpg\n/home/me/set/images/c.jpg\n")
    (tmp_path / "data.yaml").write_text("train: train.txt\nnames: [cat]\n")
    assert open_dataset(tmp_path, "train").image_ids == ("train/images/a", "train/images/c")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("7 0.5 0.5 0.2 0.2\n", "class 7 is outside 0..1, the 2 names"),
        ("0 0.5 0.5\n", "line 1: '0 0.5 0.5' is not a class index with"),
        (f"0 {SQUARE}\ncat 0.5 0.5 0.2 0.2\n", "line 2: 'cat 0.5 0.5 0.2 0.2' is not"),
        ("0 0.1 0.2 0.3 0.4 0.5\n", "line 1"),
        ("0 10 20 30 20 30 40\n", "line 1: '0 10 20 30 20 30 40' holds pixels; write x and y as fractions"),
    ],
)
def test_a_faulty_line_is_named(tmp_path, text, words):
    add(tmp_path, "images/a.jpg", "labels/a.txt", text)
    (tmp_path / "classes.txt").write_text("cat\ndog\n")
    with pytest.raises(PPLValueError, match=words):
        open_dataset(tmp_path)


def test_key_points_are_not_taken_for_polygons(tmp_path):
    (tmp_path / "data.yaml").write_text("train: x\nnames: [cat]\nkpt_shape: [17, 3]\n")
    with pytest.raises(PPLValueError, match="is of key points"):
        open_dataset(tmp_path)


@pytest.mark.parametrize("text", ["train: x\nnames: 3\n", "train: x\nnames: {1: cat}\n", "names: [\ntrain: x\n"])
def test_a_faulty_configuration_is_named(tmp_path, text):
    (tmp_path / "data.yaml").write_text(text)
    with pytest.raises(PPLValueError, match=r"data\.yaml"):
        open_dataset(tmp_path)
