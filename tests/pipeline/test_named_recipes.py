"""The recipes of the field, on data sets of a few tiny pictures in the layouts of PASCAL VOC and COCO."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ppl.errors import PPLError
from ppl.io import write_mask
from ppl.pipeline import RECIPES, STEPS, predict_folder, resolve_recipe, run_recipe
from ppl.pipeline.splits import open_splits

SMALL = [
    *("model.backbone=test_resnet", "model.pretrained=false", "model.cuts=[layer2]", "train.size=[64, 64]"),
    *("train.resize_long=null", "train.batch_size=4", "train.epochs=1", "train.num_workers=0", "cam.scales=[1.0]"),
    *("segment.encoder=test_resnet", "segment.pretrained=false", "segment.crop=64", "segment.batch_size=2"),
    *("segment.iterations=1", "segment.num_workers=0", "segment.scales=[1.0]", "device=cpu", "num_workers=1"),
]
NAMES = [f"2007_00000{number}" for number in range(6)]


def draw(path: Path, number: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(number).integers(0, 256, (48, 64, 3), np.uint8)
    Image.fromarray(pixels).save(path, quality=90)


@pytest.fixture(scope="module")
def voc(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("voc") / "VOCdevkit" / "VOC2012"
    for folder in ("Annotations", "SegmentationClass", "ImageSets/Segmentation"):
        (base / folder).mkdir(parents=True)
    for number, name in enumerate(NAMES):
        draw(base / "JPEGImages" / f"{name}.jpg", number)
        tag = ("cat", "dog")[number % 2]
        text = f"<annotation><object><name>{tag}</name></object></annotation>"
        (base / "Annotations" / f"{name}.xml").write_text(text)
        if number != 1:  # an image of trainaug whose mask nobody needs
            mask = np.zeros((48, 64), np.uint8)
            mask[10:30, 20:40] = (8, 12)[number % 2]
            write_mask(base / "SegmentationClass" / f"{name}.png", mask)
    lists = {"trainaug": [f"/JPEGImages/{n}.jpg /SegmentationClassAug/{n}.png" for n in NAMES[:4]]}
    lists |= {"train": [NAMES[0], NAMES[2]], "val": NAMES[4:]}
    for split, lines in lists.items():
        (base / "ImageSets/Segmentation" / f"{split}.txt").write_text("\n".join(lines))
    return base


@pytest.fixture(scope="module")
def coco(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("coco")
    (root / "annotations").mkdir()
    for split, count in (("train2014", 4), ("val2014", 3)):
        images, notes = [], []
        for number in range(count):
            name = f"COCO_{split}_{number:012}.jpg"
            draw(root / split / name, number)
            images.append({"id": number, "file_name": name, "height": 48, "width": 64})
            if number < count - 1:  # the last image shows none of the classes
                outline = [[20, 10, 40, 10, 40, 30, 20, 30]]
                note = {"id": number, "image_id": number, "category_id": 1 + number % 2, "segmentation": outline}
                notes.append({**note, "bbox": [20, 10, 20, 20], "area": 400, "iscrowd": 0})
        content = {
            "images": images,
            "annotations": notes,
            "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
        }
        (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))
    return root


@pytest.mark.filterwarnings("ignore")
def test_voc12_scores_cams_on_train_and_the_segmenter_on_val(voc: Path, tmp_path: Path) -> None:
    recipe, folder = resolve_recipe(Path("voc12"), [*SMALL, f"data.root={voc.parent}"])
    assert folder is None and recipe.cam.method == "propagated_cam"
    result = run_recipe(recipe, tmp_path / "run", STEPS[:-1], progress=False)
    assert result.splits == {"train": 2, "val": 2}
    assert result.scored == {"train": 2, "val": 2}
    scores = result.scores["progressive"]
    assert scores["train"]["refined mIoU"] is not None and scores["val"]["segmenter mIoU"] is not None
    manifest = json.loads((tmp_path / "run/manifest.json").read_text())
    assert manifest["data"]["images"]["trainaug"] == 4

    (tmp_path / "test.txt").write_text(f"{NAMES[5]}\n")
    archive = tmp_path / "out" / "results.tgz"
    summary = predict_folder(
        *(tmp_path / "run", voc / "JPEGImages", tmp_path / "out"),
        names=tmp_path / "test.txt",
        submission=archive,
        progress=False,
        num_workers=1,
    )
    assert summary.done == 1
    with tarfile.open(archive) as packed:
        (name,) = packed.getnames()
        assert name == f"results/VOC2012/Segmentation/comp6_test_cls/{NAMES[5]}.png"
        image = Image.open(packed.extractfile(name))
        assert image.mode == "P" and image.size == (64, 48)
        assert image.getpalette()[:6] == [0, 0, 0, 128, 0, 0]  # the colours of VOC


@pytest.mark.filterwarnings("ignore")
def test_coco14_leaves_out_images_without_objects_as_the_lists_of_the_field(coco: Path) -> None:
    recipe, _ = resolve_recipe(Path("coco14"), [*SMALL, f"data.root={coco}"])
    splits = open_splits(recipe.data, progress=False)
    assert len(splits.train) == 3 and len(splits.masked["val2014"]) == 2
    assert splits.train.classes == ("cat", "dog")
    assert all(sample.mask is not None for sample in splits.masked["val2014"])


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_without_its_data_set_says_which_files_are_needed(name: str, tmp_path: Path) -> None:
    with pytest.raises(PPLError, match=r"add --data FOLDER, which holds .*train"):
        resolve_recipe(Path(name))
    (tmp_path / "annotations").mkdir()
    with pytest.raises(PPLError, match=r"lacks .*(trainaug\.txt|instances_train2014\.json)"):
        resolve_recipe(Path(name), [f"data.root={tmp_path}"])


def test_another_list_may_take_the_place_of_the_usual_one(voc: Path) -> None:
    recipe, _ = resolve_recipe(Path("voc12"), [f"data.root={voc}", "data.train=train"])
    assert recipe.data.train == "train"
    with pytest.raises(PPLError, match=r"lacks ImageSets/Segmentation/mine\.txt"):
        resolve_recipe(Path("voc12"), [f"data.root={voc}", "data.train=mine"])
