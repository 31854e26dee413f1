from __future__ import annotations

import json
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
from ppl.cam import CamResult, iter_generate
from ppl.data import make_creatures, open_dataset
from ppl.errors import PPLError, PPLFileNotFoundError, PPLValueError
from ppl.io import read_mask, write_mask
from ppl.io.fingerprint import sha256
from ppl.pipeline import Recipe, RunFolder, RunResult, cam_folder, resolve_recipe, run_recipe, score_masks
from ppl.pipeline.training import build_model
from ppl.refine.affinity import AffinityNetwork
from ppl.refine.affinity_maps import save_affinity

MakeRecipe = Callable[..., Recipe]


def files(folder: Path) -> dict[str, int]:
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


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


def test_a_finished_run_is_not_done_again(tiny_recipe: MakeRecipe, creatures: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe(creatures)
    run_recipe(recipe, tmp_path, progress=False)
    made = {name: time for name, time in files(tmp_path).items() if name.endswith((".npz", ".png", ".safetensors"))}
    made.pop("image_grid.png")
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


def test_other_settings_renew_the_files(tiny_recipe: MakeRecipe, creatures: Path, tmp_path: Path) -> None:
    run_recipe(tiny_recipe(creatures), tmp_path, ("train", "cam"), progress=False)
    before = CamResult.load(next((tmp_path / "cams" / "val").glob("*.npz")))
    recipe = tiny_recipe(creatures, cam={"scales": [1.0, 2.0]})
    run_recipe(recipe, tmp_path, ("cam",), progress=False)
    after = CamResult.load(next((tmp_path / "cams" / "val").glob("*.npz")))
    assert not torch.equal(before.maps, after.maps)


def test_a_fault_of_a_comparison_is_reported_before_any_training(
    tiny_recipe: MakeRecipe, creatures: Path, tmp_path: Path
) -> None:
    model = {"backbone": "test_resnet", "cuts": ["layer1", "layer2"], "pretrained": False}
    recipe = tiny_recipe(creatures, model=model, compare=["baseline"])
    with pytest.raises(PPLValueError, match="phases"):
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
    image_ids = (root / "val.txt").read_text().split()
    broken = next((root / "images").glob(f"{image_ids[0]}.*"))
    broken.write_bytes(broken.read_bytes()[:200])
    with pytest.warns(UserWarning, match=image_ids[0]):
        run_recipe(tiny_recipe(root), tmp_path / "run", progress=False)
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert list(manifest["data"]["left_out"]) == [image_ids[0]]
    assert len(list((tmp_path / "run" / "refined" / "val").glob("*.png"))) == len(image_ids) - 1


def test_without_masks_there_are_masks_but_no_scores(tiny_recipe: MakeRecipe, creatures: Path, tmp_path: Path) -> None:
    import shutil

    root = tmp_path / "set"
    shutil.copytree(creatures, root, ignore=shutil.ignore_patterns("masks*", "val.txt", "train.txt"))
    recipe = tiny_recipe(root)
    result = run_recipe(recipe, tmp_path / "run", progress=False)
    assert result.scores == {"progressive": {}}
    assert len(list((tmp_path / "run" / "refined" / "all").glob("*.png"))) == 12
    assert result.image_grid is not None and result.image_grid.is_file()


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


def test_affinities_without_a_random_walk_are_refused(tiny_recipe: MakeRecipe, creatures: Path) -> None:
    with pytest.raises(PPLValueError, match="random_walk"):
        tiny_recipe(creatures, affinity={}, refine=["crf: irn"])


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
    image_id = (root / "train.txt").read_text().split()[0]
    next((root / "images").glob(f"{image_id}.*")).write_bytes(b"no picture")
    with pytest.warns(UserWarning, match=image_id):
        run_recipe(tiny_recipe(root), tmp_path / "run", ("train", "cam"), progress=False)
    run_recipe(tiny_recipe(root), tmp_path / "run", ("refine", "evaluate"), progress=False)
    assert list(json.loads((tmp_path / "run" / "manifest.json").read_text())["data"]["left_out"]) == [image_id]


def test_the_gain_of_each_of_several_refiners_is_recorded(
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


def _with_tags(root: Path, image_id: str, tags: str) -> None:
    lines = (root / "labels.csv").read_text().splitlines()
    changed = [f"{line.split(',')[0]},{tags}" if line.startswith(f"{image_id}.") else line for line in lines]
    assert changed != lines
    (root / "labels.csv").write_text("\n".join(changed) + "\n")


def test_a_corrected_tag_renews_the_results_of_its_image_only(
    tiny_recipe: MakeRecipe, creatures: Path, tmp_path: Path
) -> None:
    data, out = tmp_path / "data", tmp_path / "run"
    shutil.copytree(creatures, data)
    run_recipe(tiny_recipe(data), out, progress=False)
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


def test_a_replaced_picture_gets_a_new_map(tiny_recipe: MakeRecipe, creatures: Path, tmp_path: Path) -> None:
    data, out = tmp_path / "data", tmp_path / "run"
    shutil.copytree(creatures, data)
    run_recipe(tiny_recipe(data), out, ("train", "cam"), progress=False)
    sample = open_dataset(data, "val")[0]
    path = out / "cams" / "val" / f"{sample.image_id}.npz"
    before = CamResult.load(path).maps
    _replace_picture(sample.image)
    run_recipe(tiny_recipe(data), out, ("cam",), progress=False)
    assert not torch.equal(CamResult.load(path).maps, before)


def test_maps_of_another_data_set_are_made_again(tiny_recipe: MakeRecipe, creatures: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    run_recipe(tiny_recipe(creatures), out, ("train", "cam"), progress=False)
    before = CamResult.load(next((out / "cams" / "val").glob("*.npz"))).maps
    other = ppl.data.make_creatures(tmp_path / "other", train=8, val=4, size=64, seed=1)
    run_recipe(tiny_recipe(other), out, ("cam",), progress=False)
    assert not torch.equal(CamResult.load(next((out / "cams" / "val").glob("*.npz"))).maps, before)


def test_classes_in_another_order_are_refused(tiny_recipe: MakeRecipe, creatures: Path, tmp_path: Path) -> None:
    data, out = tmp_path / "data", tmp_path / "run"
    shutil.copytree(creatures, data)
    run_recipe(tiny_recipe(data), out, ("train", "cam"), progress=False)
    classes = (data / "classes.txt").read_text().split()
    (data / "classes.txt").write_text("\n".join(classes[::-1]))
    before = files(out)
    with pytest.raises(PPLValueError, match=f"the model was trained on {', '.join(classes)}"):
        run_recipe(tiny_recipe(data), out, ("cam",), progress=False)
    assert {name: time for name, time in files(out).items() if name.startswith("cams")} == {
        name: time for name, time in before.items() if name.startswith("cams")
    }


def test_refined_masks_of_another_background_rule_are_not_scored_or_shown(
    tiny_recipe: MakeRecipe, creatures: Path, tmp_path: Path
) -> None:
    run_recipe(tiny_recipe(creatures), tmp_path, progress=False)
    changed = tiny_recipe(creatures, cam={"scales": [1.0], "batch_size": 2, "background": 0.05})
    run_recipe(changed, tmp_path, ("cam",), progress=False)
    result = run_recipe(changed, tmp_path, ("evaluate", "report"), progress=False)
    assert result.scores["progressive"]["val"]["refined mIoU"] is None
    assert any("run `ppl refine" in note for note in result.notes)
    result = run_recipe(changed, tmp_path, ("refine", "evaluate"), progress=False)
    assert result.scores["progressive"]["val"]["refined mIoU"] is not None


def test_refine_with_another_background_cuts_the_masks_by_it_too(
    tiny_recipe: MakeRecipe, creatures: Path, tmp_path: Path
) -> None:
    run_recipe(tiny_recipe(creatures), tmp_path, progress=False)
    changed = tiny_recipe(creatures, cam={"scales": [1.0], "batch_size": 2, "background": 1.0})
    scores = run_recipe(changed, tmp_path, ("refine", "evaluate"), progress=False).scores["progressive"]["val"]
    assert scores["recall"] == 0


def test_masks_of_another_background_rule_are_not_scored(
    tiny_recipe: MakeRecipe, creatures: Path, tmp_path: Path
) -> None:
    run_recipe(tiny_recipe(creatures), tmp_path, ("train",), progress=False)
    with pytest.raises(PPLValueError, match="has no CAMs of val yet; run `ppl cam "):
        run_recipe(tiny_recipe(creatures), tmp_path, ("evaluate",), progress=False)
    run_recipe(tiny_recipe(creatures), tmp_path, ("cam",), progress=False)
    changed = tiny_recipe(creatures, cam={"scales": [1.0], "batch_size": 2, "background": 0.05})
    with pytest.raises(PPLValueError, match=r"were not cut by 0\.05"):
        run_recipe(changed, tmp_path, ("evaluate",), progress=False)


def test_other_settings_are_reported_before_a_comparison_is_trained(
    tiny_recipe: MakeRecipe, creatures: Path, tmp_path: Path
) -> None:
    run_recipe(tiny_recipe(creatures), tmp_path, ("train",), progress=False)
    train = {"epochs": 2, "batch_size": 4, "size": [64, 64], "num_workers": 0}
    with pytest.raises(PPLValueError, match=r"epochs \(1 -> 2\)"):
        run_recipe(tiny_recipe(creatures, train=train, compare=["baseline"]), tmp_path, ("train",), progress=False)
    assert not (tmp_path / "compare").exists()


def test_other_initial_weights_are_refused(tiny_recipe: MakeRecipe, creatures: Path, tmp_path: Path) -> None:
    out, file = tmp_path / "run", tmp_path / "weights.pth"
    run_recipe(tiny_recipe(creatures), out, ("train",), progress=False)
    torch.save(ppl.load_model(out / "last.safetensors").backbone.state_dict(), file)
    model = {"backbone": "test_resnet", "mode": "progressive", "cuts": ["layer2"], "checkpoint_path": str(file)}
    with pytest.raises(PPLValueError, match=r"other weights \(model\.pretrained, model\.checkpoint_path\)"):
        run_recipe(tiny_recipe(creatures, model=model), out, ("train",), progress=False)


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


def test_a_broken_cam_file_is_made_again(tiny_recipe: MakeRecipe, creatures: Path, tmp_path: Path) -> None:
    run_recipe(tiny_recipe(creatures), tmp_path, ("train", "cam"), progress=False)
    path = next((tmp_path / "cams" / "val").glob("*.npz"))
    before = CamResult.load(path).maps
    path.write_bytes(path.read_bytes()[:50])
    run_recipe(tiny_recipe(creatures), tmp_path, ("cam",), progress=False)
    assert torch.allclose(CamResult.load(path).maps, before, atol=1e-5)


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


def test_seconds_of_a_step_add_up_over_calls(tiny_recipe: MakeRecipe, creatures: Path, tmp_path: Path) -> None:
    run_recipe(tiny_recipe(creatures), tmp_path, ("train", "cam"), progress=False)
    first = RunFolder(tmp_path).read_manifest()["steps"]["cams/val"]["seconds"]
    run_recipe(tiny_recipe(creatures), tmp_path, ("cam",), progress=False)
    assert RunFolder(tmp_path).read_manifest()["steps"]["cams/val"]["seconds"] >= first > 0


@pytest.mark.parametrize("content", ["[1]", "{"])
def test_a_file_that_is_not_a_manifest_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "manifest.json").write_text(content)
    with pytest.raises(PPLValueError, match=r"manifest\.json is no manifest"):
        RunFolder(tmp_path).read_manifest()


def test_the_report_shows_the_compared_models_of_the_recipe_alone(
    tiny_recipe: MakeRecipe, creatures: Path, finished: tuple[Path, RunResult], tmp_path: Path
) -> None:
    shutil.copytree(finished[0], tmp_path / "run")
    page = tmp_path / "run" / "report.html"
    assert "baseline" in page.read_text()
    run_recipe(tiny_recipe(creatures), tmp_path / "run", ("evaluate", "report"), progress=False)
    assert "baseline" not in page.read_text()


def test_a_report_alone_keeps_the_notes_of_the_scores(
    tiny_recipe: MakeRecipe, creatures: Path, finished: tuple[Path, RunResult], tmp_path: Path
) -> None:
    shutil.copytree(finished[0], tmp_path / "run")
    notes = RunFolder(tmp_path / "run").read_manifest()["notes"]
    assert any("chosen on these very masks" in note for note in notes)
    run_recipe(tiny_recipe(creatures, compare=["baseline"]), tmp_path / "run", ("report",), progress=False)
    assert RunFolder(tmp_path / "run").read_manifest()["notes"] == notes


def test_refined_masks_of_outdated_maps_are_not_scored(
    tiny_recipe: MakeRecipe, creatures: Path, tmp_path: Path
) -> None:
    data, out = Path(shutil.copytree(creatures, tmp_path / "data")), tmp_path / "run"
    recipe = tiny_recipe(data)
    run_recipe(recipe, out, progress=False)
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


def test_a_broken_map_does_not_stop_a_refinement(tiny_recipe: MakeRecipe, creatures: Path, tmp_path: Path) -> None:
    run_recipe(tiny_recipe(creatures), tmp_path, progress=False)
    path, lines = next((tmp_path / "cams" / "val").glob("*.npz")), []
    path.write_bytes(b"no")
    changed = tiny_recipe(creatures, cam={"scales": [1.0], "batch_size": 2, "background": 0.4})
    run_recipe(changed, tmp_path, ("refine",), progress=False, log=lines.append)
    assert [line.split(": ")[1:3] for line in lines] == [
        ["no mask", path.stem],
        ["refined 3 masks of val (3 new)"],
        ["not refined", path.stem],
    ]


def test_the_initial_weights_of_a_begun_run_are_not_recorded_later(
    tiny_recipe: MakeRecipe, creatures: Path, tmp_path: Path
) -> None:
    run_recipe(tiny_recipe(creatures), tmp_path, ("train",), progress=False)
    manifest = RunFolder(tmp_path).read_manifest()
    del manifest["start"]
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    run_recipe(tiny_recipe(creatures), tmp_path, ("train",), progress=False)
    assert "start" not in RunFolder(tmp_path).read_manifest()


def test_the_notes_of_the_scores_name_a_missing_split(tiny_recipe: MakeRecipe, creatures: Path, tmp_path: Path) -> None:
    data, out = tmp_path / "data", tmp_path / "run"
    shutil.copytree(creatures, data)
    (data / "train.txt").unlink()
    run_recipe(tiny_recipe(data), out, progress=False)
    run_recipe(tiny_recipe(data), out, ("evaluate",), progress=False)
    assert any("no split 'train'" in note for note in RunFolder(out).read_manifest()["notes"])


@pytest.fixture
def copied(finished: tuple[Path, RunResult], tmp_path: Path) -> Path:
    """A finished run that a test may change."""
    return Path(shutil.copytree(finished[0], tmp_path / "copied"))


def walk(path: Path, seed: int) -> list[Any]:
    """Return a refiner that reads a new network; each seed gives another network."""
    torch.manual_seed(seed)
    save_affinity(AffinityNetwork("test_resnet"), path)
    return [{"random_walk": {"affinity": str(path), "num_steps": 2}}]


def test_a_file_that_is_no_network_is_reported_before_any_file_is_removed(
    tiny_recipe: MakeRecipe, creatures: Path, copied: Path
) -> None:
    before, scores = files(copied), RunFolder(copied).read_manifest()["scores"]
    for name, told in (("typo.safetensors", "there is no file at"), ("last.safetensors", "is not an affinity")):
        changed = tiny_recipe(creatures, refine=[{"random_walk": str(copied / name)}])
        with pytest.raises(PPLError, match=told):
            run_recipe(changed, copied, ("refine",), progress=False)
    assert files(copied) == before and RunFolder(copied).read_manifest()["scores"] == scores


def test_a_missing_network_is_reported_before_any_training(
    tiny_recipe: MakeRecipe, creatures: Path, tmp_path: Path
) -> None:
    with pytest.raises(PPLFileNotFoundError, match=r"typo\.safetensors"):
        run_recipe(tiny_recipe(creatures, refine=["random_walk: typo.safetensors"]), tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()


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


def test_masks_of_cams_are_not_scored_as_refined_masks(tiny_recipe: MakeRecipe, creatures: Path, copied: Path) -> None:
    first, *rest = sorted((copied / "refined" / "val").glob("*.png"))
    first.unlink()
    result = run_recipe(tiny_recipe(creatures), copied, ("evaluate",), progress=False)
    images = open_dataset(creatures, "val").subset([path.stem for path in rest])
    of_rest = score_masks(copied / "refined" / "val", images)["miou"]
    assert result.scores["progressive"]["val"]["refined mIoU"] == pytest.approx(of_rest, abs=1e-5)
    assert any(
        f"1 of 4 images have no refined mask and are not in refined mIoU: run `ppl refine {copied}`" in note
        for note in result.notes
    )
    assert set(RunFolder(copied).read_manifest()["per_image"]["val"]) == {path.stem for path in rest}
    for path in rest:
        path.unlink()
    result = run_recipe(tiny_recipe(creatures), copied, ("evaluate",), progress=False)
    assert result.scores["progressive"]["val"]["refined mIoU"] is None
    assert any("4 of 4 images have no refined mask: run `ppl refine" in note for note in result.notes)


@pytest.mark.parametrize("file", ["masks/val/{}.png", "cams/val/{}.npz"])
def test_a_deleted_mask_or_map_names_the_command_that_makes_it(
    tiny_recipe: MakeRecipe, creatures: Path, copied: Path, file: str
) -> None:
    (copied / file.format(open_dataset(creatures, "val").image_ids[0])).unlink()
    with pytest.raises(PPLFileNotFoundError, match=r"lacks 1 of 4 files, as .*; run `ppl cam "):
        run_recipe(tiny_recipe(creatures), copied, ("evaluate",), progress=False)
    run_recipe(tiny_recipe(creatures), copied, ("cam", "evaluate"), progress=False)


@pytest.mark.parametrize(
    ("backbone", "method", "told"),
    [("hrnet_w18_small", "sharpened_cam", "use method='cam'"), ("test_vit_relpos", "cam", "was built for images of")],
)
def test_maps_that_a_model_does_not_have_are_reported_before_any_training(
    tiny_recipe: MakeRecipe, creatures: Path, tmp_path: Path, backbone: str, method: str, told: str
) -> None:
    recipe = tiny_recipe(
        creatures,
        model={"backbone": backbone, "mode": "baseline", "pretrained": False},
        train={"epochs": 1, "batch_size": 4, "size": [160, 160], "num_workers": 0},
        cam={"scales": [1.0], "method": method},
    )
    with pytest.raises(PPLValueError, match=told):
        run_recipe(recipe, tmp_path, progress=False)
    assert not list(tmp_path.rglob("*.safetensors"))


def test_a_method_is_checked_before_the_first_image() -> None:
    model = ppl.create_model("hrnet_w18_small", 4, mode="baseline", pretrained=False)
    with pytest.raises(PPLValueError, match="use method='cam'"):
        iter_generate(model, [], method="sharpened_cam")


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


def test_masks_are_found_however_their_accents_are_stored(tmp_path: Path) -> None:
    root = make_creatures(tmp_path / "set", train=4, val=1, size=64)
    images = open_dataset(root, "val")
    (sample,) = images
    accented = replace(images, samples=(replace(sample, image_id="caf\u00e9"),))
    (tmp_path / "out").mkdir()
    shutil.copy(str(sample.mask), tmp_path / "out" / "cafe\u0301.png")
    assert score_masks(tmp_path / "out", accented)["miou"] == 1.0


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


def test_zero_workers_are_refused(finished: tuple[Path, RunResult], creatures: Path) -> None:
    out = finished[0] / "elsewhere"
    with pytest.raises(PPLValueError, match="num_workers must be -1"):
        cam_folder(finished[0] / "last.safetensors", creatures / "images", out, num_workers=0)
    assert not out.exists()


def test_a_method_that_a_model_does_not_have_removes_no_maps(
    tiny_recipe: MakeRecipe, creatures: Path, tmp_path: Path
) -> None:
    model = {"backbone": "hrnet_w18_small", "mode": "baseline", "pretrained": False}
    run_recipe(tiny_recipe(creatures, model=model), tmp_path, ("train", "cam"), progress=False)
    maps = files(tmp_path / "cams")
    with pytest.raises(PPLValueError, match="use method='cam'"):
        changed = tiny_recipe(creatures, model=model, cam={"scales": [1.0], "method": "sharpened_cam"})
        run_recipe(changed, tmp_path, ("cam",), progress=False)
    assert files(tmp_path / "cams") == maps != {}


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
