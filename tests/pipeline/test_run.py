from __future__ import annotations

import json
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
from ppl.pipeline import Recipe, RunResult, run_recipe

MakeRecipe = Callable[..., Recipe]


def files(folder: Path) -> dict[str, int]:
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def test_a_run_leaves_the_files_that_the_design_names(finished: tuple[Path, RunResult], creatures: Path) -> None:
    out, result = finished
    stems = open_dataset(creatures, "val").stems
    for folder in (out, out / "compare" / "baseline"):
        for name in ("metrics.jsonl", "best.safetensors", "last.safetensors", "manifest.json"):
            assert (folder / name).is_file(), name
        for stem in stems:
            assert (folder / "cams" / "val" / f"{stem}.npz").is_file()
            assert (folder / "masks" / "val" / f"{stem}.png").is_file()
            assert (folder / "refined" / "val" / f"{stem}.png").is_file()
    assert result.report == out / "report.html" and result.report.is_file()
    assert result.sheet == out / "sheet.png" and result.sheet.is_file()
    assert (out / "recipe.yaml").is_file()


def test_scores_are_those_of_the_files(finished: tuple[Path, RunResult], creatures: Path) -> None:
    out, result = finished
    images = open_dataset(creatures, "val")
    hits = np.zeros(5)
    union = np.zeros(5)
    for sample in images:
        target, mask = sample.read_mask(), read_mask(out / "masks" / "val" / f"{sample.stem}.png")
        for index in range(5):
            hits[index] += ((target == index) & (mask == index)).sum()
            union[index] += ((target == index) | (mask == index)).sum()
    assert result.scores["progressive"]["val"]["CAM mIoU"] == pytest.approx(np.nanmean(hits / union), abs=1e-4)


def test_only_tagged_classes_get_a_map(finished: tuple[Path, RunResult], creatures: Path) -> None:
    out, _ = finished
    for sample in open_dataset(creatures, "val"):
        cam = CamResult.load(out / "cams" / "val" / f"{sample.stem}.npz")
        assert tuple(cam.classes.tolist()) == sample.labels
        assert cam.maps.shape[1:] == Image.open(sample.image).size[::-1]


def test_the_manifest_says_how_it_was_made(finished: tuple[Path, RunResult]) -> None:
    out, _ = finished
    manifest = json.loads((out / "manifest.json").read_text())
    assert torch.__version__.startswith(manifest["versions"]["torch"])
    assert manifest["seed"] == 0
    assert len(manifest["weights"]["sha256"]) == 64
    assert manifest["thresholds"]["val"]["best_chosen_on"] == "val"
    assert manifest["refinement"][0]["parameters"]["backend"] in ("native", "torch", "pydensecrf")
    assert manifest["data"]["left_out"] == {}
    assert all(step["finished"] for step in manifest["steps"].values())


def test_a_finished_run_is_not_done_again(tiny_recipe: MakeRecipe, creatures: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe(creatures)
    run_recipe(recipe, tmp_path, progress=False)
    made = {name: time for name, time in files(tmp_path).items() if name.endswith((".npz", ".png", ".safetensors"))}
    made.pop("sheet.png")
    run_recipe(recipe, tmp_path, progress=False)
    again = files(tmp_path)
    assert {name: again[name] for name in made} == made


def test_a_step_goes_on_where_it_was_killed(tiny_recipe: MakeRecipe, creatures: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe(creatures)
    run_recipe(recipe, tmp_path, ("train", "cam"), progress=False)
    kept, lost = sorted((tmp_path / "cams" / "val").glob("*.npz"))[:2]
    maps, time = CamResult.load(lost).maps, kept.stat().st_mtime_ns
    lost.unlink()
    run_recipe(recipe, tmp_path, ("cam",), progress=False)
    assert kept.stat().st_mtime_ns == time
    assert torch.allclose(CamResult.load(lost).maps, maps, atol=1e-5)


def test_other_settings_do_not_mix_with_old_files(tiny_recipe: MakeRecipe, creatures: Path, tmp_path: Path) -> None:
    run_recipe(tiny_recipe(creatures), tmp_path, ("train", "cam"), progress=False)
    before = CamResult.load(next((tmp_path / "cams" / "val").glob("*.npz")))
    recipe = tiny_recipe(creatures, cam={"scales": [1.0, 2.0]})
    run_recipe(recipe, tmp_path, ("cam",), progress=False)
    after = CamResult.load(next((tmp_path / "cams" / "val").glob("*.npz")))
    assert not torch.equal(before.maps, after.maps)


def test_a_faulty_comparison_is_told_before_anything_is_trained(
    tiny_recipe: MakeRecipe, creatures: Path, tmp_path: Path
) -> None:
    model = {"backbone": "test_resnet", "cuts": ["layer1", "layer2"], "pretrained": False}
    recipe = tiny_recipe(creatures, model=model, compare=["baseline"])
    with pytest.raises(PPLValueError, match="stages"):
        run_recipe(recipe, tmp_path, progress=False)
    assert not list(tmp_path.rglob("*.safetensors"))


def test_cams_without_a_trained_model_name_the_command(
    tiny_recipe: MakeRecipe, creatures: Path, tmp_path: Path
) -> None:
    with pytest.raises(PPLValueError, match="ppl train"):
        run_recipe(tiny_recipe(creatures), tmp_path, ("cam",), progress=False)


def test_bad_images_are_left_out_and_listed(tiny_recipe: MakeRecipe, creatures: Path, tmp_path: Path) -> None:
    import shutil

    root = tmp_path / "set"
    shutil.copytree(creatures, root)
    stems = (root / "val.txt").read_text().split()
    broken = next((root / "images").glob(f"{stems[0]}.*"))
    broken.write_bytes(broken.read_bytes()[:200])
    with pytest.warns(UserWarning, match=stems[0]):
        run_recipe(tiny_recipe(root), tmp_path / "run", progress=False)
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert list(manifest["data"]["left_out"]) == [stems[0]]
    assert len(list((tmp_path / "run" / "refined" / "val").glob("*.png"))) == len(stems) - 1


def test_without_masks_there_are_masks_but_no_scores(tiny_recipe: MakeRecipe, creatures: Path, tmp_path: Path) -> None:
    import shutil

    root = tmp_path / "set"
    shutil.copytree(creatures, root, ignore=shutil.ignore_patterns("masks*", "val.txt", "train.txt"))
    recipe = tiny_recipe(root)
    result = run_recipe(recipe, tmp_path / "run", progress=False)
    assert result.scores == {"progressive": {}}
    assert len(list((tmp_path / "run" / "refined" / "all").glob("*.png"))) == 12
    assert result.sheet is not None and result.sheet.is_file()


def test_affinities_are_learned_from_the_training_images_and_walked_on(
    tiny_recipe: MakeRecipe, creatures: Path, tmp_path: Path
) -> None:
    affinity = {"train": {"epochs": 1, "batch_size": 4, "crop": 64, "radius": 3}}
    recipe = tiny_recipe(creatures, affinity=affinity, refine=[{"random_walk": {"steps": 4}}])
    result = run_recipe(recipe, tmp_path, progress=False)
    file = tmp_path / "affinity" / "affinity.safetensors"
    assert file.is_file() and len(list((tmp_path / "cams" / "train").glob("*.npz"))) == 8
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert manifest["refinement"][0]["parameters"]["affinity"] == str(file)
    assert result.scores["progressive"]["val"]["refined mIoU"] is not None
    time = file.stat().st_mtime_ns
    run_recipe(recipe, tmp_path, progress=False)
    assert file.stat().st_mtime_ns == time


def test_affinities_that_nothing_walks_on_are_refused(tiny_recipe: MakeRecipe, creatures: Path) -> None:
    with pytest.raises(PPLValueError, match="random_walk"):
        tiny_recipe(creatures, affinity={}, refine=["crf: irn"])


def test_maps_that_are_empty_are_told(
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


def test_refused_settings_do_not_stay_in_the_folder(tiny_recipe: MakeRecipe, creatures: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe(creatures)
    run_recipe(recipe, tmp_path, ("train",), progress=False)
    before = (tmp_path / "recipe.yaml").read_text()
    other = tiny_recipe(creatures, train=recipe.train.model_dump() | {"lr": 0.5})
    with pytest.raises(PPLValueError, match="lr"):
        run_recipe(other, tmp_path, ("train",), progress=False)
    assert (tmp_path / "recipe.yaml").read_text() == before


def test_later_steps_keep_the_list_of_bad_training_images(
    tiny_recipe: MakeRecipe, creatures: Path, tmp_path: Path
) -> None:
    import shutil

    root = tmp_path / "set"
    shutil.copytree(creatures, root)
    stem = (root / "train.txt").read_text().split()[0]
    next((root / "images").glob(f"{stem}.*")).write_bytes(b"no picture")
    with pytest.warns(UserWarning, match=stem):
        run_recipe(tiny_recipe(root), tmp_path / "run", ("train", "cam"), progress=False)
    run_recipe(tiny_recipe(root), tmp_path / "run", ("refine", "evaluate"), progress=False)
    assert list(json.loads((tmp_path / "run" / "manifest.json").read_text())["data"]["left_out"]) == [stem]


def test_a_chain_of_refiners_records_what_each_step_gains(
    tiny_recipe: MakeRecipe, finished: tuple[Path, RunResult], creatures: Path, tmp_path: Path
) -> None:
    import shutil

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
