"""One folder of images per class."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from ppl.data import open_dataset
from ppl.errors import PPLFileNotFoundError
from ppl.io import write_mask


def add(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 3)).save(root / name)


@pytest.mark.parametrize("below", ["", "images"])
def test_folders_are_classes(tmp_path, below):
    add(tmp_path / below, "dog/1.jpg", "cat/1.jpg", "cat/deep/2.png", "background/3.jpg")
    write_mask(tmp_path / "masks" / "cat" / "1.png", np.ones((3, 4), int))
    dataset = open_dataset(tmp_path)
    assert dataset.classes == ("cat", "dog")
    found = {sample.image_id: sample.labels for sample in dataset}
    assert found == {"background/3": (), "cat/1": (0,), "cat/deep/2": (0,), "dog/1": (1,)}
    assert {sample.image_id for sample in dataset if sample.mask is not None} == {"cat/1"}


def test_folders_of_splits_hold_folders_of_classes(tmp_path):
    add(tmp_path, "train/cat/1.jpg", "train/dog/1.jpg", "val/cat/2.jpg", "val/dog/2.jpg")
    assert open_dataset(tmp_path, "train").image_ids == ("train/cat/1", "train/dog/1")
    assert open_dataset(tmp_path, "val").image_ids == ("val/cat/2", "val/dog/2")
    assert len(open_dataset(tmp_path)) == 4
    with pytest.raises(PPLFileNotFoundError, match="no split 'test'; there are: train, val"):
        open_dataset(tmp_path, "test")


def test_a_single_folder_is_not_taken_for_a_class_unless_named(tmp_path):
    add(tmp_path, "pictures/1.jpg")
    with pytest.raises(PPLFileNotFoundError, match="is in no known layout"):
        open_dataset(tmp_path)
    assert open_dataset(tmp_path, layout="class_folders").classes == ("pictures",)


def test_pictures_beside_the_folders_are_no_such_layout(tmp_path):
    add(tmp_path, "cat/1.jpg", "dog/1.jpg", "loose.jpg")
    with pytest.raises(PPLFileNotFoundError, match="holds no folders of images; make one folder per class"):
        open_dataset(tmp_path, layout="class_folders")
