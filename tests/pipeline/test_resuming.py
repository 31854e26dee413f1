"""Finished work is known by its content: what a second call of a run does again, and what it leaves."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import ppl
from ppl.cam import CamResult
from ppl.data import open_dataset
from ppl.errors import PPLError, PPLValueError
from ppl.io import read_mask
from ppl.pipeline import Recipe, RunFolder, RunResult, run_recipe
from ppl.refine.affinity import AffinityNetwork
from ppl.refine.affinity_maps import save_affinity

MakeRecipe = Callable[..., Recipe]


def files(folder: Path) -> dict[str, int]:
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def test_a_finished_run_is_not_done_again(tiny_recipe: MakeRecipe, creatures: Path, copied: Path) -> None:
    made = {name: time for name, time in files(copied).items() if name.endswith((".npz", ".png", ".safetensors"))}
    made.pop("image_grid.png")
    assert len(made) > 20
    run_recipe(tiny_recipe(creatures, compare=["baseline"]), copied, progress=False)
    again = files(copied)
    assert {name: again[name] for name in made} == made


def test_a_step_goes_on_where_it_was_killed(tiny_recipe: MakeRecipe, creatures: Path, copied: Path) -> None:
    kept, lost = sorted((copied / "cams" / "val").glob("*.npz"))[:2]
    maps, time = CamResult.load(lost).maps, kept.stat().st_mtime_ns
    lost.unlink()
    run_recipe(tiny_recipe(creatures), copied, ("cam",), progress=False)
    assert kept.stat().st_mtime_ns == time
    assert torch.allclose(CamResult.load(lost).maps, maps, atol=1e-5)


def test_other_settings_renew_the_files(tiny_recipe: MakeRecipe, creatures: Path, copied: Path) -> None:
    path = next((copied / "cams" / "val").glob("*.npz"))
    before = CamResult.load(path)
    recipe = tiny_recipe(creatures, cam={"scales": [1.0, 2.0]})
    run_recipe(recipe, copied, ("cam",), progress=False)
    after = CamResult.load(path)
    assert not torch.equal(before.maps, after.maps)


def _with_tags(root: Path, image_id: str, tags: str) -> None:
    lines = (root / "labels.csv").read_text().splitlines()
    changed = [f"{line.split(',')[0]},{tags}" if line.startswith(f"{image_id}.") else line for line in lines]
    assert changed != lines
    (root / "labels.csv").write_text("\n".join(changed) + "\n")


def test_a_corrected_tag_renews_the_results_of_its_image_only(
    tiny_recipe: MakeRecipe, creatures: Path, copied: Path, tmp_path: Path
) -> None:
    data, out = Path(shutil.copytree(creatures, tmp_path / "data")), copied
    run_recipe(tiny_recipe(data), out, ("cam", "refine"), progress=False)
    sample = open_dataset(data, "val")[0]
    other = next(index for index in range(4) if index not in sample.labels)
    _with_tags(data, sample.image_id, open_dataset(data, "val").classes[other])
    before = files(out)
    run_recipe(tiny_recipe(data), out, ("cam", "refine"), progress=False)
    renewed = {name for name, time in files(out).items() if before[name] != time and name.endswith((".npz", ".png"))}
    kinds = {"cams": "npz", "masks": "png", "refined": "png"}
    assert renewed == {f"{kind}/val/{sample.image_id}.{suffix}" for kind, suffix in kinds.items()}
    assert CamResult.load(out / "cams" / "val" / f"{sample.image_id}.npz").classes.tolist() == [other]
    assert set(np.unique(read_mask(out / "refined" / "val" / f"{sample.image_id}.png"))) <= {0, other + 1}


def _replace_picture(path: Path) -> None:
    """Put another picture in the place of one, with the old time."""
    times = path.stat().st_atime_ns, path.stat().st_mtime_ns
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)).save(path)
    os.utime(path, ns=times)


def test_a_replaced_picture_gets_a_new_map(
    tiny_recipe: MakeRecipe, creatures: Path, copied: Path, tmp_path: Path
) -> None:
    data, out = Path(shutil.copytree(creatures, tmp_path / "data")), copied
    run_recipe(tiny_recipe(data), out, ("cam",), progress=False)
    sample = open_dataset(data, "val")[0]
    path = out / "cams" / "val" / f"{sample.image_id}.npz"
    before = CamResult.load(path).maps
    _replace_picture(sample.image)
    run_recipe(tiny_recipe(data), out, ("cam",), progress=False)
    assert not torch.equal(CamResult.load(path).maps, before)


def test_maps_of_another_data_set_are_made_again(
    tiny_recipe: MakeRecipe, creatures: Path, copied: Path, tmp_path: Path
) -> None:
    path = next((copied / "cams" / "val").glob("*.npz"))
    before = CamResult.load(path).maps
    other = ppl.data.make_creatures(tmp_path / "other", train=8, val=4, size=64, seed=1)
    run_recipe(tiny_recipe(other), copied, ("cam",), progress=False)
    assert not torch.equal(CamResult.load(path).maps, before)


def test_classes_in_another_order_are_refused(
    tiny_recipe: MakeRecipe, creatures: Path, copied: Path, tmp_path: Path
) -> None:
    data, out = Path(shutil.copytree(creatures, tmp_path / "data")), copied
    run_recipe(tiny_recipe(data), out, ("cam",), progress=False)
    classes = (data / "classes.txt").read_text().split()
    (data / "classes.txt").write_text("\n".join(classes[::-1]))
    before = files(out)
    with pytest.raises(PPLValueError, match=f"the model was trained on {', '.join(classes)}"):
        run_recipe(tiny_recipe(data), out, ("cam",), progress=False)
    assert {name: time for name, time in files(out).items() if name.startswith("cams")} == {
        name: time for name, time in before.items() if name.startswith("cams")
    }


def test_a_broken_cam_file_is_made_again(tiny_recipe: MakeRecipe, creatures: Path, copied: Path) -> None:
    path = next((copied / "cams" / "val").glob("*.npz"))
    before = CamResult.load(path).maps
    path.write_bytes(path.read_bytes()[:50])
    run_recipe(tiny_recipe(creatures), copied, ("cam",), progress=False)
    assert torch.allclose(CamResult.load(path).maps, before, atol=1e-5)


def test_refined_masks_of_outdated_maps_are_not_scored(
    tiny_recipe: MakeRecipe, creatures: Path, copied: Path, tmp_path: Path
) -> None:
    data, out = Path(shutil.copytree(creatures, tmp_path / "data")), copied
    recipe = tiny_recipe(data)
    run_recipe(recipe, out, ("cam", "refine", "evaluate"), progress=False)
    sample = open_dataset(data, "val")[0]
    _replace_picture(sample.image)
    run_recipe(recipe, out, ("cam",), progress=False)
    assert RunFolder(out).read_manifest()["scores"] == {}
    result = run_recipe(recipe, out, ("evaluate",), progress=False)
    assert any("1 refined masks are not scored" in note for note in result.notes)
    assert sample.image_id not in RunFolder(out).read_manifest()["per_image"]["val"]
    result = run_recipe(recipe, out, ("refine", "evaluate"), progress=False)
    assert not any("not scored" in note for note in result.notes)
    assert sample.image_id in RunFolder(out).read_manifest()["per_image"]["val"]


@pytest.mark.parametrize("time", [1e9, 4e9])
def test_a_run_and_pictures_of_other_times_are_not_done_again(
    tiny_recipe: MakeRecipe, creatures: Path, finished: tuple[Path, RunResult], tmp_path: Path, time: float
) -> None:
    data, out = (Path(shutil.copytree(path, tmp_path / path.name)) for path in (creatures, finished[0]))
    for path in (data / "images").iterdir():
        os.utime(path, (time, time))
    lines: list[str] = []
    run_recipe(tiny_recipe(data), out, ("cam", "refine", "evaluate"), progress=False, log=lines.append)
    assert lines == ["progressive: maps of 4 images of val (0 new)", "progressive: refined 4 masks of val (0 new)"]


def test_a_replaced_cam_file_gets_a_new_mask_and_a_note(tiny_recipe: MakeRecipe, creatures: Path, copied: Path) -> None:
    sample = open_dataset(creatures, "val")[0]
    path = copied / "cams" / "val" / f"{sample.image_id}.npz"
    time = path.stat().st_mtime_ns
    cam = CamResult.load(path)
    replace(cam, maps=torch.ones_like(cam.maps)).save(path)
    os.utime(path, ns=(time, time))
    with pytest.raises(PPLValueError, match=r"1 CAM files of val in .* have been replaced; run `ppl cam"):
        run_recipe(tiny_recipe(creatures), copied, ("evaluate",), progress=False)
    lines: list[str] = []
    result = run_recipe(tiny_recipe(creatures), copied, ("refine",), progress=False, log=lines.append)
    assert lines == ["progressive: refined 4 masks of val (1 new)"]
    assert any(f"1 of 4 CAM files of val, as {path.name}" in note for note in result.notes)
    run_recipe(tiny_recipe(creatures), copied, ("cam",), progress=False)
    assert torch.allclose(CamResult.load(path).maps, cam.maps, atol=1e-5)


def test_other_weights_make_new_maps(tiny_recipe: MakeRecipe, creatures: Path, copied: Path) -> None:
    shutil.copy(copied / "compare" / "baseline" / "last.safetensors", copied / "last.safetensors")
    with pytest.raises(PPLValueError, match=r"4 CAM files of val in .* were made from other weights"):
        run_recipe(tiny_recipe(creatures), copied, ("evaluate",), progress=False)


def walk(path: Path, seed: int) -> list[Any]:
    """Return a refiner that reads a new network; each seed gives another network."""
    torch.manual_seed(seed)
    save_affinity(AffinityNetwork("test_resnet"), path)
    return [{"random_walk": {"affinity": str(path), "num_steps": 2}}]


def test_a_file_that_is_no_network_is_reported_before_any_file_is_removed(
    tiny_recipe: MakeRecipe, creatures: Path, copied: Path
) -> None:
    before, scores = files(copied), RunFolder(copied).read_manifest()["scores"]
    for name, told in (("typo.safetensors", "there is no file at"), ("last.safetensors", "holds no affinity network")):
        changed = tiny_recipe(creatures, refine=[{"random_walk": str(copied / name)}])
        with pytest.raises(PPLError, match=told):
            run_recipe(changed, copied, ("refine",), progress=False)
    assert files(copied) == before and RunFolder(copied).read_manifest()["scores"] == scores


def test_masks_are_made_again_if_their_network_is_replaced(
    tiny_recipe: MakeRecipe, creatures: Path, copied: Path
) -> None:
    lines: list[str] = []
    for seed, new in ((0, 4), (0, 0), (1, 4)):
        recipe = tiny_recipe(creatures, refine=walk(copied.parent / "net.safetensors", seed))
        run_recipe(recipe, copied, ("refine",), progress=False, log=lines.append)
        assert lines[-1] == f"progressive: refined 4 masks of val ({new} new)"
    (step,) = RunFolder(copied).read_manifest()["refinement"]
    assert len(step["sha256"]["affinity"]) == 64


def test_a_replaced_training_image_renews_the_affinities(
    tiny_recipe: MakeRecipe, creatures: Path, tmp_path: Path
) -> None:
    data, out = Path(shutil.copytree(creatures, tmp_path / "data")), tmp_path / "run"
    affinity = {"train": {"epochs": 1, "batch_size": 4, "crop": 64, "radius": 3}}
    recipe = tiny_recipe(data, affinity=affinity, refine=[{"random_walk": {"num_steps": 4}}])
    run_recipe(recipe, out, ("train", "cam", "refine"), progress=False)
    made = RunFolder(out).affinity.stat().st_mtime_ns
    run_recipe(recipe, out, ("refine",), progress=False)
    assert RunFolder(out).affinity.stat().st_mtime_ns == made
    assert RunFolder(out).read_manifest()["steps"]["affinity"]["finished"]
    _replace_picture(open_dataset(data, "train")[0].image)
    run_recipe(recipe, out, ("refine",), progress=False)
    assert RunFolder(out).affinity.stat().st_mtime_ns > made


def test_a_network_that_a_refiner_names_is_not_removed(tiny_recipe: MakeRecipe, creatures: Path, copied: Path) -> None:
    network = copied / "affinity" / "affinity.safetensors"
    network.parent.mkdir()
    splits = {"root": creatures, "splits": ["train", "val"]}
    for scales in ([1.0], [1.0, 0.5]):
        recipe = tiny_recipe(creatures, data=splits, refine=walk(network, 0), cam={"scales": scales})
        run_recipe(recipe, copied, ("cam", "refine"), progress=False)
    assert network.is_file()


def test_refined_masks_of_a_run_that_was_copied_are_kept(
    tiny_recipe: MakeRecipe, creatures: Path, copied: Path
) -> None:
    masks = sorted((copied / "refined" / "val").glob("*.png"))
    for mask in masks:
        os.utime(mask, (1e9, 1e9))
    run_recipe(tiny_recipe(creatures), copied, ("refine",), progress=False)
    assert [mask.stat().st_mtime for mask in masks] == [1e9] * len(masks) != []


def test_a_method_that_a_model_does_not_have_removes_no_maps(
    tiny_recipe: MakeRecipe, creatures: Path, copied: Path
) -> None:
    maps = files(copied / "cams")
    with pytest.raises(PPLValueError, match="use method='auto'"):
        changed = tiny_recipe(creatures, cam={"scales": [1.0], "method": "attention_rollout"})
        run_recipe(changed, copied, ("cam",), progress=False)
    assert files(copied / "cams") == maps != {}
