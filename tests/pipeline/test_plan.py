"""What a run will cost, from a few images."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import ppl.pipeline
from ppl.cli import main
from ppl.errors import PPLValueError
from ppl.pipeline import PlanStep, Recipe, plan_run

SEGMENT = {"decoder": "fpn", "pretrained": False, "crop": 64, "batch_size": 4, "iterations": 5, "num_workers": 0}
TRAIN = {"epochs": 3, "batch_size": 4, "size": [64, 64], "num_workers": 0}


def test_every_step_counts_the_images_that_the_run_would_handle(
    creatures: Path, tiny_recipe: Callable[..., Recipe]
) -> None:
    recipe = tiny_recipe(creatures, train=TRAIN, segment=SEGMENT)
    steps = {step.name: step for step in plan_run(recipe, images=1000, sample=2)}
    mapped = 1000 + 4  # the training images, for the segmenter, and val
    passes = {
        "check the files": mapped,
        "train": 3 * 1000,
        "train: validation": 3 * 4,
        "CAMs": mapped,
        "masks": mapped,
        "refinement": mapped,
        "train segmenter": 5 * 4,
        "train segmenter: validation": 4,
        "predictions": 4,
    }
    assert {name: step.passes for name, step in steps.items()} == passes
    assert steps["train"].seconds > 0 and steps["train segmenter"].disk > 0
    assert all(steps[name].disk / mapped > 50 for name in ("CAMs", "masks", "refinement"))  # bytes of a file


def test_images_without_tags_are_not_counted_where_the_run_passes_them_by(
    creatures: Path, tiny_recipe: Callable[..., Recipe], tmp_path: Path
) -> None:
    root = shutil.copytree(creatures, tmp_path / "creatures")
    train = (root / "train.txt").read_text().split()
    head, *rows = (root / "labels.csv").read_text().splitlines()
    bare = train[: len(train) // 2]
    rows = [f"{row.split(',')[0]}," if Path(row.split(",")[0]).stem in bare else row for row in rows]
    (root / "labels.csv").write_text("\n".join([head, *rows]))
    settings = {"train": TRAIN, "refine": ["pixel_classifier"], "faithfulness": 2}
    recipe = tiny_recipe(root, pixels={"images": 100}, **settings)
    steps = {step.name: step for step in plan_run(recipe, images=1000, sample=4)}
    assert {name: steps[name].passes for name in list(steps)[3:]} == {
        "CAMs": 100 + 4,  # of training for the pixel classifier, and val
        "masks": 4,
        "fit pixels": 50,
        "refinement": 4,
        "tests of CAMs": 2,
    }
    recipe = tiny_recipe(root, segment=SEGMENT, pixels={"images": 100}, **settings)
    steps = {step.name: step for step in plan_run(recipe, images=1000, sample=4)}
    assert [steps[name].passes for name in ("CAMs", "masks", "refinement")] == [1000 + 4, 1000 + 4, 500 + 4]


def test_a_plan_of_one_image_is_refused(creatures: Path, tiny_recipe: Callable[..., Recipe]) -> None:
    with pytest.raises(PPLValueError, match="2 or more"):
        plan_run(tiny_recipe(creatures), sample=1)


def test_hours_are_shared_and_costs_are_not(
    creatures: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    steps = [PlanStep("train", 36_000, 1.0), PlanStep("CAMs", 7200, 0.5, 2e9)]
    monkeypatch.setattr(ppl.pipeline, "plan_run", lambda recipe, **options: steps)
    with pytest.raises(SystemExit) as stop:
        main(["plan", str(creatures), "--devices", "2", "--price", "3", "--quiet"])
    assert stop.value.code == 0
    rows = [line.replace("│", " ").split() for line in capsys.readouterr().out.splitlines()]
    assert ["train", "36000", "1.0000", "5.00", "0.00", "30.00"] in rows
    assert ["all", "5.50", "2.00", "33.00"] in rows
