"""Folders of maps and masks: into our files and out of them."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image

from ppl.cam import CamResult
from ppl.errors import PPLFileNotFoundError, PPLValueError
from ppl.io import read_mask, write_mask
from ppl.pipeline import export_folder, import_folder

QUIET = {"progress": False, "num_workers": 1}
NAMES = ("2007_000032", "sub/caf\u00e9 \u732b;1")


@pytest.fixture
def cams(tmp_path):
    torch.manual_seed(0)
    for name in NAMES:
        maps = torch.rand(2, 10, 16)
        CamResult(maps, torch.tensor([1, 4]), torch.ones(2), (10, 16)).save(tmp_path / "cams" / f"{name}.npz")
    return tmp_path / "cams"


@pytest.fixture
def masks(tmp_path):
    """Masks of two pictures, with their pictures and classes."""
    for number, name in enumerate(NAMES):
        mask = np.zeros((12, 20), np.uint8)
        mask[2:9, 3 : 9 + number] = 1
        mask[5:11, 12:19] = 2
        write_mask(tmp_path / "masks" / f"{name}.png", mask)
        (tmp_path / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (20, 12)).save(tmp_path / "images" / f"{name}.jpg")
    (tmp_path / "classes.txt").write_text("cat\nla \u732b\n", encoding="utf-8")
    return tmp_path / "masks"


@pytest.mark.parametrize("kind", ["irn", "psa", "puzzle"])
def test_maps_go_out_and_come_back(cams, tmp_path, kind):
    assert export_folder(cams, tmp_path / "out", kind, **QUIET).done == 2
    summary = import_folder(tmp_path / "out", tmp_path / "back", kind, allow_pickle=True, **QUIET)
    assert (summary.done, summary.bad) == (2, ())
    for name in NAMES:
        ours, back = (CamResult.load(folder / f"{name}.npz") for folder in (cams, tmp_path / "back"))
        assert torch.equal(ours.maps, back.maps) and torch.equal(ours.classes, back.classes)
    assert import_folder(tmp_path / "out", tmp_path / "back", kind, allow_pickle=True, **QUIET).skipped == 2


def test_pickles_need_a_word_and_one_bad_file_is_left_out(cams, tmp_path):
    export_folder(cams, tmp_path / "out", "irn", **QUIET)
    with pytest.raises(PPLValueError, match="allow_pickle=True"):
        import_folder(tmp_path / "out", tmp_path / "back", "irn", **QUIET)
    assert not (tmp_path / "back").exists()
    (tmp_path / "out" / "broken.npy").write_bytes(b"\x93NUMPY")
    summary = import_folder(tmp_path / "out", tmp_path / "back", "irn", allow_pickle=True, **QUIET)
    assert summary.done == 2 and [file.image_id for file in summary.bad] == ["broken"]


def test_palette_pngs_are_the_masks_of_the_maps(cams, tmp_path):
    export_folder(cams, tmp_path / "out", "png", background=0.6, **QUIET)
    for name in NAMES:
        expected = CamResult.load(cams / f"{name}.npz").to_mask(0.6)
        assert Image.open(tmp_path / "out" / f"{name}.png").mode == "P"
        assert np.array_equal(read_mask(tmp_path / "out" / f"{name}.png"), expected.numpy())


def test_masks_become_coco_instances_that_pycocotools_reads(masks, tmp_path):
    coco = pytest.importorskip("pycocotools.coco")
    words = {"images": tmp_path / "images", "classes": tmp_path / "classes.txt"}
    assert export_folder(masks, tmp_path / "instances.json", "coco", **words, **QUIET).done == 2
    theirs = coco.COCO(str(tmp_path / "instances.json"))
    for image in theirs.loadImgs(theirs.getImgIds()):
        drawn = np.zeros((12, 20), np.uint8)
        for note in theirs.loadAnns(theirs.getAnnIds(imgIds=image["id"])):
            drawn[theirs.annToMask(note) > 0] = note["category_id"]
        assert np.array_equal(drawn, read_mask(masks / image["file_name"].replace(".jpg", ".png")))
    import_folder(tmp_path / "instances.json", tmp_path / "back", "coco", **QUIET)
    for name in NAMES:
        assert np.array_equal(read_mask(tmp_path / "back" / f"{name}.png"), read_mask(masks / f"{name}.png"))
    assert (tmp_path / "back" / "classes.txt").read_text(encoding="utf-8") == "cat\nla \u732b\n"


def test_run_length_codes_of_pycocotools_become_masks(tmp_path):
    coco = pytest.importorskip("pycocotools.mask")
    region = np.random.default_rng(0).random((12, 20)) < 0.4
    code = coco.encode(np.asfortranarray(region.astype(np.uint8)))
    note = {"id": 1, "image_id": 7, "category_id": 30, "iscrowd": 0, "area": int(region.sum())}
    note |= {"segmentation": {"size": [12, 20], "counts": code["counts"].decode()}, "bbox": coco.toBbox(code).tolist()}
    box = note | {"id": 2, "image_id": 8, "segmentation": []}
    images = [{"id": id_, "file_name": f"d\\{id_}.jpg", "height": 12, "width": 20} for id_ in (7, 8, 9)]
    categories = [{"id": 30, "name": "owl"}, {"id": 5, "name": "cat"}]
    (tmp_path / "json").mkdir()
    content = {"images": images, "annotations": [note, box], "categories": categories}
    (tmp_path / "json" / "a.json").write_text(json.dumps(content))
    summary = import_folder(tmp_path / "json", tmp_path / "out", "coco", **QUIET)
    assert np.array_equal(read_mask(tmp_path / "out" / "d" / "7.png"), 2 * region)
    assert not read_mask(tmp_path / "out" / "d" / "9.png").any()
    assert [(file.image_id, "no outline" in file.reason) for file in summary.bad] == [("d/8", True)]


def test_masks_become_yolo_polygons_and_come_back(masks, tmp_path):
    export_folder(masks, tmp_path / "labels", "yolo", classes=tmp_path / "classes.txt", **QUIET)
    (tmp_path / "labels" / "sub" / "odd.txt").write_text("7 0 0 1 0 1 1\n")
    Image.new("RGB", (20, 12)).save(tmp_path / "images" / "sub" / "odd.png")
    summary = import_folder(tmp_path / "labels", tmp_path / "back", "yolo", images=tmp_path / "images", **QUIET)
    assert [(file.image_id, file.reason) for file in summary.bad] == [
        ("sub/odd", "class 7 is outside 0..1, the 2 names")
    ]
    for name in NAMES:
        assert (read_mask(tmp_path / "back" / f"{name}.png") == read_mask(masks / f"{name}.png")).mean() > 0.95


def test_masks_in_colours_become_indices(tmp_path):
    (tmp_path / "in").mkdir()
    Image.new("RGB", (4, 3), (250, 50, 83)).save(tmp_path / "in" / "a.png")
    (tmp_path / "in" / "labelmap.txt").write_text("background:0,0,0::\ncar:250,50,83::\n")
    import_folder(tmp_path / "in", tmp_path / "out", "png", **QUIET)
    assert (read_mask(tmp_path / "out" / "a.png") == 1).all()


@pytest.mark.parametrize(
    ("direction", "kind", "words", "told"),
    [
        ("out", "irm", {}, "no format named 'irm'; did you mean 'irn'"),
        ("out", "irn", {}, r"masks holds no \.npz file but"),
        ("out", "coco", {"classes": "classes.txt"}, "--images FOLDER"),
        ("out", "coco", {"classes": "classes.txt", "images": "few"}, "no picture for 1 file: 'sub/"),
        ("out", "yolo", {}, r"classes\.txt is missing"),
        ("in", "yolo", {"classes": "classes.txt"}, "--images FOLDER"),
        ("in", "irn", {"allow_pickle": True}, r"masks holds no \.npy file"),
        ("in", "coco", {}, "masks holds 0 JSON files"),
    ],
)
def test_what_is_missing_is_said_before_any_work(masks, tmp_path, direction, kind, words, told):
    (tmp_path / "few").mkdir()
    Image.new("RGB", (20, 12)).save(tmp_path / "few" / f"{NAMES[0]}.jpg")
    words = {key: tmp_path / value if isinstance(value, str) else value for key, value in words.items()}
    call = export_folder if direction == "out" else import_folder
    with pytest.raises((PPLValueError, PPLFileNotFoundError), match=told):
        call(masks, tmp_path / "result", kind, **words, **QUIET)
    assert not (tmp_path / "result").exists()


def test_results_never_lie_among_their_sources(masks):
    with pytest.raises(PPLValueError, match="choose another folder"):
        import_folder(masks, masks, "png", **QUIET)
