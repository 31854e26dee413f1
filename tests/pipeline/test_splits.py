"""Which images a run uses, by the lists that its data set has."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image

from ppl.data import DatasetConfig
from ppl.errors import PPLFileNotFoundError, PPLValueError
from ppl.pipeline.splits import Splits, open_splits

VOC_XML = "<annotation><object><name>{}</name></object></annotation>"


@pytest.fixture
def root(creatures: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(creatures, tmp_path / "photos"))


@pytest.fixture
def voc(tmp_path: Path) -> Path:
    """Three images, one of them in val."""
    base = tmp_path / "voc"
    for folder in ("JPEGImages", "Annotations", "ImageSets/Segmentation"):
        (base / folder).mkdir(parents=True)
    (base / "classes.txt").write_text("cat\n")
    for image_id in ("a", "b", "c"):
        Image.new("RGB", (8, 6)).save(base / "JPEGImages" / f"{image_id}.jpg")
        (base / "Annotations" / f"{image_id}.xml").write_text(VOC_XML.format("cat"))
    (base / "ImageSets" / "Segmentation" / "train.txt").write_text("a\nb\n")
    (base / "ImageSets" / "Segmentation" / "val.txt").write_text("c\n")
    return base


def opened(root: Path, **keys: object) -> Splits:
    return open_splits(DatasetConfig.model_validate({"root": root, **keys}), progress=False)


def names(root: Path, split: str) -> set[str]:
    return set((root / f"{split}.txt").read_text().split())


def test_both_lists_are_used_and_nothing_is_noted(root: Path) -> None:
    splits = opened(root)
    assert set(splits.train.image_ids) == names(root, "train")
    assert splits.val is not None and set(splits.val.image_ids) == names(root, "val")
    assert list(splits.masked) == ["val"] and splits.masked["val"] is splits.val
    assert splits.notes == ()


def test_without_lists_every_image_is_trained_on_and_that_is_noted(root: Path) -> None:
    for split in ("train", "val"):
        (root / f"{split}.txt").unlink()
    splits = opened(root)
    assert len(splits.train) == 12 and splits.val is None
    assert list(splits.masked) == ["all"] and splits.masked["all"] is splits.train
    assert splits.notes == (
        "photos has no split 'train': trained on every image",
        "photos has no split 'val': no epoch is validated",
    )


def test_without_a_train_list_the_validation_images_are_not_trained_on(root: Path) -> None:
    held_out = names(root, "val")
    (root / "train.txt").unlink()
    splits = opened(root)
    assert len(splits.train) == 8 and not held_out & set(splits.train.image_ids)
    assert splits.val is not None and set(splits.val.image_ids) == held_out
    assert list(splits.masked) == ["val"]
    assert splits.notes == ("photos has no split 'train': trained on every image outside 'val'",)
    assert len(opened(root, splits=["all"]).masked["all"]) == 12


def test_a_train_split_of_null_is_every_image(root: Path) -> None:
    splits = opened(root, train=None)
    assert len(splits.train) == 12 and splits.notes == ()


def test_a_validation_list_of_every_image_leaves_none_to_train_on(root: Path) -> None:
    (root / "val.txt").write_text("\n".join(names(root, "val") | names(root, "train")))
    (root / "train.txt").unlink()
    with pytest.raises(PPLValueError, match=r"every image is in 'val'.*write the list"):
        opened(root)


@pytest.mark.parametrize("key", ["train", "val"])
def test_a_split_that_is_asked_for_by_name_must_be_there(root: Path, key: str) -> None:
    (root / f"{key}.txt").unlink()
    with pytest.raises(PPLFileNotFoundError, match=f"there is no split '{key}'"):
        opened(root, **{key: key})


def test_a_folder_that_is_not_there_is_no_missing_split(tmp_path: Path) -> None:
    with pytest.raises(PPLFileNotFoundError, match="is not a folder"):
        opened(tmp_path / "nowhere")


@pytest.mark.parametrize("layout", ["auto", "voc"])
@pytest.mark.parametrize("image_id", ["a", "c"])
def test_a_missing_voc_annotation_is_no_missing_split(voc: Path, layout: str, image_id: str) -> None:
    (voc / "Annotations" / f"{image_id}.xml").unlink()
    with pytest.raises(PPLFileNotFoundError, match=rf"{image_id}\.xml is missing"):
        opened(voc, layout=layout)


def test_voc_without_a_train_list_trains_outside_val(voc: Path) -> None:
    (voc / "ImageSets" / "Segmentation" / "train.txt").unlink()
    splits = opened(voc)
    assert splits.train.image_ids == ("a", "b") and list(splits.masked) == ["val"]
    assert splits.notes == ("voc has no split 'train': trained on every image outside 'val'",)


def test_a_missing_coco_image_folder_is_no_missing_split(tmp_path: Path) -> None:
    (tmp_path / "annotations").mkdir()
    for split in ("train", "val"):
        content = {
            "images": [{"id": 1, "file_name": f"{split}.jpg", "height": 6, "width": 8}],
            "categories": [{"id": 1, "name": "cat"}],
            "annotations": [{"image_id": 1, "category_id": 1, "segmentation": [[0, 0, 8, 0, 8, 5, 0, 5]]}],
        }
        (tmp_path / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))
        (tmp_path / split).mkdir()
        Image.new("RGB", (8, 6)).save(tmp_path / split / f"{split}.jpg")
    assert opened(tmp_path).train.image_ids == ("train",)
    shutil.rmtree(tmp_path / "val")
    with pytest.raises(PPLFileNotFoundError, match="has neither val/ nor images/"):
        opened(tmp_path)
