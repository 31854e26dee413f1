"""Which masks are scored, and what report and notes say about the others."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from ppl.data import make_creatures, open_dataset
from ppl.errors import PPLFileNotFoundError, PPLValueError
from ppl.pipeline import Recipe, RunFolder, RunResult, reporting, run_recipe, score_masks

MakeRecipe = Callable[..., Recipe]


def test_refined_masks_of_another_background_rule_are_not_scored_or_shown(
    tiny_recipe: MakeRecipe, creatures: Path, copied: Path
) -> None:
    changed = tiny_recipe(creatures, cam={"scales": [1.0], "batch_size": 2, "background": 0.05})
    run_recipe(changed, copied, ("cam",), progress=False)
    result = run_recipe(changed, copied, ("evaluate", "report"), progress=False)
    assert result.scores["progressive"]["val"]["refined mIoU"] is None
    assert any("run `ppl refine" in note for note in result.notes)
    result = run_recipe(changed, copied, ("refine", "evaluate"), progress=False)
    assert result.scores["progressive"]["val"]["refined mIoU"] is not None


def test_refine_with_another_background_cuts_the_masks_by_it_too(
    tiny_recipe: MakeRecipe, creatures: Path, copied: Path
) -> None:
    changed = tiny_recipe(creatures, cam={"scales": [1.0], "batch_size": 2, "background": 1.0})
    scores = run_recipe(changed, copied, ("refine", "evaluate"), progress=False).scores["progressive"]["val"]
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


def test_the_report_shows_the_compared_models_of_the_recipe_alone(
    tiny_recipe: MakeRecipe, creatures: Path, finished: tuple[Path, RunResult], tmp_path: Path
) -> None:
    shutil.copytree(finished[0], tmp_path / "run")
    page = tmp_path / "run" / "report.html"
    assert "baseline" in page.read_text()
    run_recipe(tiny_recipe(creatures), tmp_path / "run", ("evaluate", "report"), progress=False)
    assert "baseline" not in page.read_text()


def test_the_worst_and_the_best_images_start_with_the_masks_that_rank_them(
    tiny_recipe: MakeRecipe, creatures: Path, copied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"_ROWS": 1, "_EXTREMES": 1, "finished_predictions": reporting.finished_refined}.items():
        monkeypatch.setattr(reporting, name, value)
    run_recipe(tiny_recipe(creatures, compare=["baseline"]), copied, ("report",), progress=False)
    starts = re.findall('data-start="(.*?)"', (copied / "report.html").read_text())
    assert starts == ["segmenter", "refined mask", "refined mask"]


def test_a_report_alone_keeps_the_notes_of_the_scores(
    tiny_recipe: MakeRecipe, creatures: Path, finished: tuple[Path, RunResult], tmp_path: Path
) -> None:
    shutil.copytree(finished[0], tmp_path / "run")
    notes = RunFolder(tmp_path / "run").read_manifest()["notes"]
    assert any("chosen on these very masks" in note for note in notes)
    run_recipe(tiny_recipe(creatures, compare=["baseline"]), tmp_path / "run", ("report",), progress=False)
    assert RunFolder(tmp_path / "run").read_manifest()["notes"] == notes


def test_the_notes_of_the_scores_name_a_missing_split(tiny_recipe: MakeRecipe, creatures: Path, tmp_path: Path) -> None:
    data, out = tmp_path / "data", tmp_path / "run"
    shutil.copytree(creatures, data)
    (data / "train.txt").unlink()
    run_recipe(tiny_recipe(data), out, progress=False)
    run_recipe(tiny_recipe(data), out, ("evaluate",), progress=False)
    assert any("no split 'train'" in note for note in RunFolder(out).read_manifest()["notes"])


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


def test_masks_are_found_however_their_accents_are_stored(tmp_path: Path) -> None:
    root = make_creatures(tmp_path / "set", train=4, val=1, size=64)
    images = open_dataset(root, "val")
    (sample,) = images
    accented = replace(images, samples=(replace(sample, image_id="caf\u00e9"),))
    (tmp_path / "out").mkdir()
    shutil.copy(str(sample.mask), tmp_path / "out" / "cafe\u0301.png")
    assert score_masks(tmp_path / "out", accented)["miou"] == 1.0
