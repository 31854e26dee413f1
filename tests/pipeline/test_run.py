from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import ppl
from ppl.cam import CamResult
from ppl.data import open_dataset
from ppl.errors import PPLValueError
from ppl.io import read_mask
from ppl.pipeline import Recipe, RunFolder, RunResult, resolve_recipe, run_recipe
from ppl.pipeline.training import build_model

MakeRecipe = Callable[..., Recipe]


def test_a_run_leaves_the_files_that_the_design_names(finished: tuple[Path, RunResult], creatures: Path) -> None:
    out, result = finished
    image_ids = open_dataset(creatures, "val").image_ids
    for folder in (out, out / "compare" / "baseline"):
        for name in ("metrics.jsonl", "best.safetensors", "last.safetensors", "manifest.json"):
            assert (folder / name).is_file(), name
        for image_id in image_ids:
            assert (folder / "cams" / "val" / f"{image_id}.npz").is_file()
            assert (folder / "masks" / "val" / f"{image_id}.png").is_file()
            assert (folder / "refined" / "val" / f"{image_id}.png").is_file()
    assert result.report == out / "report.html" and result.report.is_file()
    assert result.image_grid == out / "image_grid.png" and result.image_grid.is_file()
    assert (out / "recipe.yaml").is_file()


def test_scores_are_those_of_the_files(finished: tuple[Path, RunResult], creatures: Path) -> None:
    out, result = finished
    images = open_dataset(creatures, "val")
    hits = np.zeros(5)
    union = np.zeros(5)
    for sample in images:
        target, mask = sample.read_mask(), read_mask(out / "masks" / "val" / f"{sample.image_id}.png")
        for index in range(5):
            hits[index] += ((target == index) & (mask == index)).sum()
            union[index] += ((target == index) | (mask == index)).sum()
    assert result.scores["progressive"]["val"]["CAM mIoU"] == pytest.approx(np.nanmean(hits / union), abs=1e-4)


def test_only_tagged_classes_get_a_map(finished: tuple[Path, RunResult], creatures: Path) -> None:
    out, _ = finished
    for sample in open_dataset(creatures, "val"):
        cam = CamResult.load(out / "cams" / "val" / f"{sample.image_id}.npz")
        assert tuple(cam.classes.tolist()) == sample.labels
        assert cam.maps.shape[1:] == Image.open(sample.image).size[::-1]


def test_the_manifest_says_how_it_was_made(finished: tuple[Path, RunResult]) -> None:
    out, _ = finished
    manifest = json.loads((out / "manifest.json").read_text())
    assert torch.__version__.startswith(manifest["versions"]["torch"])
    assert manifest["seed"] == 0
    assert len(manifest["weights"]["sha256"]) == 64
    assert manifest["thresholds"]["val"]["best_chosen_on"] == "val"
    assert manifest["refinement"][0]["options"]["backend"] in ("native", "torch", "pydensecrf")
    assert manifest["data"]["left_out"] == {}
    assert all(step["finished"] for step in manifest["steps"].values())


def test_models_are_built_from_the_seed_without_a_change_of_the_callers_random_numbers(
    tiny_recipe: MakeRecipe, creatures: Path
) -> None:
    before = torch.get_rng_state()
    first, second = (build_model(tiny_recipe(creatures), ("cat", "dog")).state_dict() for _ in range(2))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(value, second[name]) for name, value in first.items())


def test_bad_images_are_left_out_and_listed(tiny_recipe: MakeRecipe, creatures: Path, tmp_path: Path) -> None:
    root = tmp_path / "set"
    shutil.copytree(creatures, root)
    image_ids = (root / "val.txt").read_text().split()
    broken = next((root / "images").glob(f"{image_ids[0]}.*"))
    broken.write_bytes(broken.read_bytes()[:200])
    with pytest.warns(UserWarning, match=image_ids[0]):
        run_recipe(tiny_recipe(root), tmp_path / "run", progress=False)
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert list(manifest["data"]["left_out"]) == [image_ids[0]]
    assert len(list((tmp_path / "run" / "refined" / "val").glob("*.png"))) == len(image_ids) - 1


def test_without_masks_there_are_masks_but_no_scores(tiny_recipe: MakeRecipe, creatures: Path, tmp_path: Path) -> None:
    root = tmp_path / "set"
    shutil.copytree(creatures, root, ignore=shutil.ignore_patterns("masks*", "val.txt", "train.txt"))
    recipe = tiny_recipe(root)
    result = run_recipe(recipe, tmp_path / "run", progress=False)
    assert result.scores == {"progressive": {}}
    assert len(list((tmp_path / "run" / "refined" / "all").glob("*.png"))) == 12
    assert result.image_grid is not None and result.image_grid.is_file()


def test_empty_maps_raise_a_warning(
    tiny_recipe: MakeRecipe, creatures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = tiny_recipe(creatures)
    run_recipe(recipe, tmp_path, ("train",), progress=False)

    def blind(path: Path) -> ppl.PPLNet:
        model = ppl.load_model(path)
        for classifier in model.fusion.parameters():
            torch.nn.init.zeros_(classifier)
        return model

    monkeypatch.setattr("ppl.pipeline.cams.load_model", blind)
    with pytest.warns(UserWarning, match="100% of the maps of val are empty"):
        run_recipe(recipe, tmp_path, ("cam",), progress=False)


def test_later_steps_keep_the_list_of_bad_training_images(
    tiny_recipe: MakeRecipe, creatures: Path, tmp_path: Path
) -> None:
    root = tmp_path / "set"
    shutil.copytree(creatures, root)
    image_id = (root / "train.txt").read_text().split()[0]
    next((root / "images").glob(f"{image_id}.*")).write_bytes(b"no picture")
    with pytest.warns(UserWarning, match=image_id):
        run_recipe(tiny_recipe(root), tmp_path / "run", ("train", "cam"), progress=False)
    run_recipe(tiny_recipe(root), tmp_path / "run", ("refine", "evaluate"), progress=False)
    assert list(json.loads((tmp_path / "run" / "manifest.json").read_text())["data"]["left_out"]) == [image_id]


def test_a_compared_mode_trains_without_the_losses_that_need_patches(
    tiny_recipe: MakeRecipe, creatures: Path, tmp_path: Path
) -> None:
    train = {"epochs": 2, "batch_size": 4, "size": [64, 64], "num_workers": 0, "epochs_per_phase": [1, 1]}
    model = {"backbone": "test_resnet", "mode": "progressive", "cuts": ["layer1", "layer2"], "pretrained": False}
    recipe = tiny_recipe(
        creatures, train=train | {"auxiliary": {"patches": 1.0}}, model=model, compare=["baseline", "baseline"]
    )
    result = run_recipe(recipe, tmp_path, ("train",), progress=False)
    assert result.notes == ["baseline: trained without patches, for which it has no patches"]
    assert (tmp_path / "compare" / "baseline" / "last.safetensors").exists()


def test_a_compared_model_has_a_run_folder_of_its_own(finished: tuple[Path, RunResult]) -> None:
    out, result = finished
    recipe, folder = resolve_recipe(out / "compare" / "baseline")
    assert recipe.model.mode == "baseline" and folder is not None
    again = run_recipe(recipe, folder, ("evaluate",), progress=False)
    assert again.scores["baseline"] == result.scores["baseline"]


def test_seconds_of_a_step_add_up_over_calls(tiny_recipe: MakeRecipe, creatures: Path, copied: Path) -> None:
    first = RunFolder(copied).read_manifest()["steps"]["cams/val"]["seconds"]
    run_recipe(tiny_recipe(creatures), copied, ("cam",), progress=False)
    assert RunFolder(copied).read_manifest()["steps"]["cams/val"]["seconds"] >= first > 0


@pytest.mark.parametrize("content", ["[1]", "{"])
def test_a_file_that_is_not_a_manifest_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "manifest.json").write_text(content)
    with pytest.raises(PPLValueError, match=r"manifest\.json is no manifest"):
        RunFolder(tmp_path).read_manifest()


def test_the_initial_weights_of_a_begun_run_are_not_recorded_later(
    tiny_recipe: MakeRecipe, creatures: Path, copied: Path
) -> None:
    manifest = RunFolder(copied).read_manifest()
    del manifest["start"]
    (copied / "manifest.json").write_text(json.dumps(manifest))
    run_recipe(tiny_recipe(creatures), copied, ("train",), progress=False)
    assert "start" not in RunFolder(copied).read_manifest()


def test_later_steps_keep_the_number_of_training_images(
    tiny_recipe: MakeRecipe, creatures: Path, tmp_path: Path
) -> None:
    root = Path(shutil.copytree(creatures, tmp_path / "set"))
    image_id = (root / "train.txt").read_text().split()[0]
    next((root / "images").glob(f"{image_id}.*")).write_bytes(b"no picture")
    with pytest.warns(UserWarning, match=image_id):
        run_recipe(tiny_recipe(root), tmp_path / "run", ("train", "cam"), progress=False)
    run_recipe(tiny_recipe(root), tmp_path / "run", ("evaluate",), progress=False)
    assert RunFolder(tmp_path / "run").read_manifest()["data"]["images"] == {"train": 7, "val": 4}


def test_temporary_files_of_a_killed_run_are_removed(tiny_recipe: MakeRecipe, creatures: Path, copied: Path) -> None:
    old, young, foreign = (
        copied / name for name in (".image_grid.png.0123abcd.tmp", ".a.npz.0123abcd.tmp", ".mine.tmp")
    )
    for path in (old, young, foreign):
        path.write_bytes(b"half")
    for path in (old, foreign):
        os.utime(path, (1e9, 1e9))
    run_recipe(tiny_recipe(creatures), copied, ("evaluate",), progress=False)
    assert (old.exists(), young.exists(), foreign.exists()) == (False, True, True)
