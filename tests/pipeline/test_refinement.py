"""The refinement of a run: its network, its gain, images that cannot be refined."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ppl.data import open_dataset
from ppl.errors import PPLValueError
from ppl.io import write_mask
from ppl.io.fingerprint import sha256
from ppl.parallel import shard
from ppl.pipeline import Recipe, RunFolder, RunResult, run_recipe

MakeRecipe = Callable[..., Recipe]


def test_affinities_are_learned_from_the_training_images_and_used_by_the_random_walk(
    tiny_recipe: MakeRecipe, creatures: Path, tmp_path: Path
) -> None:
    affinity = {"train": {"epochs": 1, "batch_size": 4, "crop": 64, "radius": 3}}
    recipe = tiny_recipe(creatures, affinity=affinity, refine=[{"random_walk": {"num_steps": 4}}])
    result = run_recipe(recipe, tmp_path, progress=False)
    file = tmp_path / "affinity" / "affinity.safetensors"
    assert file.is_file() and len(list((tmp_path / "cams" / "train").glob("*.npz"))) == 8
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert manifest["refinement"][0]["options"]["affinity"] == file.name
    assert manifest["refinement"][0]["sha256"] == {"affinity": sha256(file)}
    assert result.scores["progressive"]["val"]["refined mIoU"] is not None
    time = file.stat().st_mtime_ns
    run_recipe(recipe, tmp_path, progress=False)
    assert file.stat().st_mtime_ns == time


def test_a_pixel_classifier_is_fitted_to_the_training_images_and_used_by_its_refiner(
    tiny_recipe: MakeRecipe, creatures: Path, tmp_path: Path
) -> None:
    recipe = tiny_recipe(creatures, pixels={"steps": 20, "images": 5}, refine=["pixel_classifier", "guided_filter: 2"])
    result = run_recipe(recipe, tmp_path, progress=False)
    file = tmp_path / "pixels" / "pixels.safetensors"
    assert file.is_file() and len(list((tmp_path / "cams" / "train").glob("*.npz"))) == 5
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert manifest["pixels"]["images"] == 5
    assert manifest["refinement"][0]["sha256"] == {"network": sha256(file)}
    assert [score["label"] for score in manifest["refinement_scores"]["val"]][1:] == [
        "pixel_classifier: pixels.safetensors",
        "guided_filter: 2",
    ]
    assert result.scores["progressive"]["val"]["refined mIoU"] is not None
    time = file.stat().st_mtime_ns
    run_recipe(recipe, tmp_path, progress=False)
    assert file.stat().st_mtime_ns == time
    more = tiny_recipe(creatures, pixels={"steps": 30, "images": 5}, refine=["pixel_classifier", "guided_filter: 2"])
    run_recipe(more, tmp_path, progress=False)
    assert file.stat().st_mtime_ns != time


def test_a_shard_finds_the_pixel_classifier_fitted_or_says_so(
    tiny_recipe: MakeRecipe, copied: Path, creatures: Path
) -> None:
    recipe = tiny_recipe(creatures, refine=["pixel_classifier"])
    with shard("1/2"), pytest.raises(PPLValueError, match="no network for pixel_classifier yet"):
        run_recipe(recipe, copied, ("refine",), progress=False)


def test_the_gain_of_each_of_several_refiners_is_recorded(
    tiny_recipe: MakeRecipe, finished: tuple[Path, RunResult], creatures: Path, tmp_path: Path
) -> None:

    out = tmp_path / "run"
    shutil.copytree(finished[0], out)
    recipe = tiny_recipe(
        creatures, compare=["baseline"], refine=["guided_filter: 2", {"superpixels": {"n_segments": 40}}]
    )
    result = run_recipe(recipe, out, ("refine", "evaluate"), progress=False)
    cam, first, last = json.loads((out / "manifest.json").read_text())["refinement_scores"]["val"]
    assert [cam["label"], first["label"]] == ["CAM", "guided_filter: 2"]
    scores = result.scores["progressive"]["val"]
    assert cam["miou"] == pytest.approx(scores["CAM mIoU"], abs=1e-5)  # those are rounded
    assert last["miou"] == pytest.approx(scores["refined mIoU"], abs=1e-5)  # those are rounded
    assert last["gain"] == pytest.approx(last["miou"] - first["miou"])


def test_images_that_could_not_be_refined_are_listed_until_they_can_be(
    tiny_recipe: MakeRecipe, creatures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, folder, lines = tiny_recipe(creatures), RunFolder(tmp_path), []
    run_recipe(recipe, tmp_path, ("train", "cam"), progress=False)
    image_id = open_dataset(creatures, "val").image_ids[1]

    def faulty(path: Path, values: Any) -> None:
        if path.stem == image_id:
            raise ValueError("no such mask")
        write_mask(path, values)

    with monkeypatch.context() as patched:
        patched.setattr("ppl.refine.results.write_mask", faulty)
        run_recipe(recipe, tmp_path, ("refine",), progress=False, log=lines.append)
    assert lines == [
        "progressive: refined 3 masks of val (3 new)",
        f"progressive: not refined: {image_id}: no such mask",
    ]
    assert folder.read_manifest()["not_refined"] == {"val": {image_id: "no such mask"}}
    folder.record(refinement_scores={"gone": [1]})
    run_recipe(recipe, tmp_path, ("refine",), progress=False)
    manifest = folder.read_manifest()
    assert manifest["not_refined"] == {"val": {}} and "gone" not in manifest["refinement_scores"]


def test_a_broken_map_does_not_stop_a_refinement(tiny_recipe: MakeRecipe, creatures: Path, copied: Path) -> None:
    path, lines = next((copied / "cams" / "val").glob("*.npz")), []
    path.write_bytes(b"no")
    changed = tiny_recipe(creatures, cam={"scales": [1.0], "batch_size": 2, "background": 0.4})
    run_recipe(changed, copied, ("refine",), progress=False, log=lines.append)
    assert [line.split(": ")[1:3] for line in lines] == [
        ["no mask", path.stem],
        ["refined 3 masks of val (3 new)"],
        ["not refined", path.stem],
    ]


def test_a_pixel_classifier_that_agrees_too_little_is_not_used_and_the_run_says_so(
    tiny_recipe: MakeRecipe, creatures: Path, tmp_path: Path
) -> None:
    lines: list[str] = []
    pixels = {"steps": 20, "images": 8, "refiners": None, "min_agreement": 1.0}
    recipe = tiny_recipe(creatures, pixels=pixels, refine=["pixel_classifier", "guided_filter: 2"])
    run_recipe(recipe, tmp_path / "run", progress=False, log=lines.append)
    found = json.loads((tmp_path / "run" / "manifest.json").read_text())["pixels"]
    assert found["useful"] is False and -1 <= found["agreement"] < 1
    assert any(f"is {found['agreement']:.2f}, below pixels.min_agreement=1" in line for line in lines)
    plain = tiny_recipe(creatures, refine=["guided_filter: 2"])
    run_recipe(plain, tmp_path / "plain", progress=False)
    folders = [tmp_path / name / "refined" / "val" for name in ("plain", "run")]
    files, others = ({path.name: path.read_bytes() for path in folder.rglob("*.png")} for folder in folders)
    assert files and files == others
