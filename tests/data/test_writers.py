"""Masks in the formats of annotation tools, read back by pycocotools and by our readers."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from ppl.data import Sample, TaggedImages, make_creatures, open_dataset, write_coco, write_yolo
from ppl.data.instances import decode_runs, encode_runs
from ppl.errors import PPLValueError
from ppl.io import write_mask


@pytest.fixture(scope="module")
def creatures(tmp_path_factory):
    return open_dataset(make_creatures(tmp_path_factory.mktemp("sets") / "creatures", train=6, val=2, size=96), "train")


@pytest.mark.parametrize("seed", range(6))
def test_codes_are_those_of_pycocotools(seed):
    coco = pytest.importorskip("pycocotools.mask")
    rng = np.random.default_rng(seed)
    mask = rng.random((31, 44)) < (0.5, 0.02, 0.98, 0.3, 0.0, 1.0)[seed]
    if seed == 3:
        mask[:, 10:30] = True  # long runs
    code = encode_runs(mask)
    theirs = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
    assert code == {"size": list(theirs["size"]), "counts": theirs["counts"].decode()}
    assert np.array_equal(decode_runs(code, mask.shape), mask)


def test_coco_files_hold_the_same_masks(creatures, tmp_path):
    coco = pytest.importorskip("pycocotools.coco")
    path = tmp_path / "annotations" / "instances_train.json"
    write_coco(path, creatures)
    theirs = coco.COCO(str(path))
    (tmp_path / "images").symlink_to(creatures[0].image.parent)
    ours = open_dataset(tmp_path, "train")
    assert ours.classes == creatures.classes
    for number, (sample, again) in enumerate(zip(creatures, ours, strict=True), start=1):
        mask = sample.read_mask()
        assert (again.image_id, again.labels) == (sample.image_id, sample.labels)
        assert np.array_equal(again.read_mask(), mask)
        drawn = np.zeros_like(mask)
        for note in theirs.loadAnns(theirs.getAnnIds(imgIds=number)):
            region = theirs.annToMask(note)
            assert (region.sum(), list(coco.maskUtils.toBbox(coco.maskUtils.encode(np.asfortranarray(region))))) == (
                note["area"],
                note["bbox"],
            )
            drawn[region > 0] = note["category_id"]
        assert np.array_equal(drawn, mask)


def test_yolo_files_hold_nearly_the_same_masks(creatures, tmp_path):
    (tmp_path / "images").symlink_to(creatures[0].image.parent)
    write_yolo(tmp_path / "labels", creatures)
    (tmp_path / "labels" / "classes.txt").rename(tmp_path / "classes.txt")
    (tmp_path / "data.yaml").write_text(f"train: images\nnames: [{', '.join(creatures.classes)}]\n")
    ours = {sample.image.name: sample for sample in open_dataset(tmp_path, "train")}
    for sample in creatures:
        mask, again = sample.read_mask(), ours[sample.image.name].read_mask()
        assert ours[sample.image.name].labels == sample.labels
        assert (mask == again).mean() > 0.985


def test_masks_of_a_folder_are_written_and_images_without_one_left_out(creatures, tmp_path):
    write_mask(tmp_path / "masks" / f"{creatures[1].image_id}.png", np.full((96, 96), 2))
    write_coco(tmp_path / "out.json", creatures, tmp_path / "masks")
    content = json.loads((tmp_path / "out.json").read_text())
    assert [image["file_name"] for image in content["images"]] == [f"{creatures[1].image_id}.jpg"]
    assert [(note["category_id"], note["area"], note["bbox"]) for note in content["annotations"]] == [
        (2, 96 * 96, [0, 0, 96, 96])
    ]
    with pytest.raises(PPLValueError, match=r"no image of creatures/train has a mask in .*nowhere"):
        write_coco(tmp_path / "out.json", creatures, tmp_path / "nowhere")
    write_mask(tmp_path / "masks" / f"{creatures[1].image_id}.png", np.full((96, 96), 9))
    with pytest.raises(PPLValueError, match="holds index 9, but there are 4 classes"):
        write_yolo(tmp_path / "yolo", creatures, tmp_path / "masks")


@pytest.mark.parametrize(
    "name", ["a b", "caf\u00e9", 'quo"te', "semi;colon", "100%", "\u732b", "a'b", "[x]", "sub/deep"]
)
def test_names_of_any_characters_survive(tmp_path, name):
    image = tmp_path / "images" / f"{name}.png"
    image.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 6)).save(image)
    mask = np.zeros((6, 8), np.uint8)
    mask[1:5, 2:6] = 1
    write_mask(tmp_path / "masks" / f"{name}.png", mask)
    sample = Sample(name, image, (0,), tmp_path / "masks" / f"{name}.png")
    dataset = TaggedImages(("cat",), (sample,), "names")
    write_coco(tmp_path / "result.json", dataset)
    (again,) = open_dataset(tmp_path, layout="coco")
    assert (again.image_id, again.image) == (name, image)
    assert np.array_equal(again.read_mask(), mask)
    write_yolo(tmp_path / "labels", dataset)
    assert (tmp_path / "labels" / f"{name}.txt").read_text().startswith("0 ")
