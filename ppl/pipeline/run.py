"""The order of the steps, for one model or for several that are compared."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ppl.errors import PPLValueError
from ppl.io import atomic_write
from ppl.pipeline.affinity import learn_affinities
from ppl.pipeline.cams import make_cams, make_masks
from ppl.pipeline.device import torch_device
from ppl.pipeline.evaluation import score_split
from ppl.pipeline.folder import RunFolder
from ppl.pipeline.recipe import Recipe
from ppl.pipeline.refinement import refine_masks
from ppl.pipeline.reporting import make_report
from ppl.pipeline.splits import Splits, open_splits
from ppl.pipeline.target import dump_recipe
from ppl.pipeline.training import check_models, train_classifier, with_mode
from ppl.refine import parse_refiners
from ppl.refine.specs import check_files

__all__ = ["STEPS", "RunResult", "run_recipe"]

STEPS = ("train", "cam", "refine", "evaluate", "report")
"""What a run does, in this order."""


@dataclass
class RunResult:
    """What a run came to.

    Attributes:
        scores: by model (its mode) and split, the scores of `evaluate`; empty where there are no masks.
        splits: names of the splits that masks were made of.
        notes: lines that a reader of the scores should know.
        image_grid: the image grid, if it was made.
        report: the page, if it was made.
    """

    scores: dict[str, dict[str, dict[str, float | None]]] = field(default_factory=dict)
    splits: tuple[str, ...] = ()
    notes: list[str] = field(default_factory=list)
    image_grid: Path | None = None
    report: Path | None = None


def run_recipe(
    recipe: Recipe,
    out: str | Path,
    steps: Sequence[str] = STEPS,
    *,
    progress: bool = True,
    say: Callable[[str], None] = lambda line: None,
) -> RunResult:
    """Do a recipe's steps in a run folder. What is finished there, from the same inputs, is not done again.

    Args:
        recipe: what to do.
        out: the run folder; made if missing.
        steps: some of `STEPS`.
        progress: show progress bars, where the error stream is a terminal.
        say: takes one line as each step ends.

    Returns:
        Scores, pictures and the report.

    Raises:
        PPLFileNotFoundError: if a file that the recipe names is not there.
        PPLValueError: if a step needs another one that has not been done, or the recipe names a file that cannot be
            what it should be.
    """
    for step in steps:
        if step not in STEPS:
            raise PPLValueError(f"no step {step!r}; there are: {', '.join(STEPS)}")
    torch_device(recipe.device)
    if "refine" in steps:
        check_files(parse_refiners(recipe.refine))
    folder = RunFolder(Path(out))
    splits = open_splits(recipe.data, training=_needs_training_images(recipe, steps), progress=progress)
    result = RunResult(splits=tuple(splits.masked), notes=list(splits.notes))
    own = recipe.model.mode
    modes: list[str] = [*dict.fromkeys(mode for mode in recipe.compare if mode != own), own]
    arms = {mode: folder if mode == own else folder.comparison(mode) for mode in modes}
    folder.make()
    folder.sweep()
    if "train" in steps:
        check_models(recipe, arms, splits, maps="cam" in steps)
    if not folder.recipe.exists():
        _write_recipe(folder, recipe)
    _record_data(folder, recipe, splits, steps)
    for mode, arm in arms.items():
        alone = with_mode(recipe, mode)
        dropped = sorted(set(recipe.train.auxiliary) - set(alone.train.auxiliary))
        if dropped:
            result.notes.append(f"{mode}: trained without {', '.join(dropped)}, for which it has no patches")
        result.scores[mode] = _run_model(alone, arm, splits, steps, progress, say, result.notes)
        _write_recipe(arm, recipe if mode == own else alone)  # now: what a step refused must not stay there
        arm.keep_splits(splits.masked)
    if "evaluate" in steps:
        folder.record(notes=result.notes)
    if "report" in steps:
        result.image_grid, result.report = make_report(recipe, folder, splits, modes)
    return result


def _run_model(
    recipe: Recipe,
    folder: RunFolder,
    splits: Splits,
    steps: Sequence[str],
    progress: bool,
    say: Callable[[str], None],
    notes: list[str],
) -> dict[str, dict[str, float | None]]:
    """All steps of one model."""
    mode = recipe.model.mode
    if "train" in steps:
        summary = train_classifier(recipe, folder, splits.train, splits.val, progress=progress)
        score = "" if summary.best_score is None else f", best validation mAP {100 * summary.best_score:.1f}"
        say(f"{mode}: trained {summary.epochs} epochs in {summary.seconds:.0f} s{score}")
    elif not folder.weights(recipe.cam.checkpoint).exists():
        raise PPLValueError(f"{folder.path} holds no trained model yet; run `ppl train` or `ppl run` first")
    if "refine" in steps and recipe.affinity is not None:
        learn_affinities(recipe, recipe.affinity, folder, splits.train, progress=progress)
        say(f"{mode}: affinities learned from {len(splits.train)} training images")
    scores: dict[str, dict[str, float | None]] = {}
    for split, images in splits.masked.items():
        if "cam" in steps:
            made = make_cams(recipe, folder, split, images, progress=progress)
            say(f"{mode}: maps of {len(images)} images of {split} ({made} new)")
        if "cam" in steps or "refine" in steps:  # both may have changed the background rule
            for bad in make_masks(recipe, folder, split, images, progress=progress):
                say(f"{mode}: no mask: {bad.image_id}: {bad.reason}")
        if "refine" in steps and recipe.refine:
            refined = refine_masks(recipe, folder, split, images, progress=progress)
            say(f"{mode}: refined {refined.done + refined.skipped} masks of {split} ({refined.done} new)")
            for bad in refined.bad:
                say(f"{mode}: not refined: {bad.image_id}: {bad.reason}")
        elif "refine" in steps:
            folder.record(refinement=[], refinement_scores={split: []})
        if "evaluate" in steps and any(sample.mask is not None for sample in images):
            scores[split] = score_split(recipe, folder, split, images, notes)
    return scores


def _needs_training_images(recipe: Recipe, steps: Sequence[str]) -> bool:
    return "train" in steps or ("refine" in steps and recipe.affinity is not None)


def _write_recipe(folder: RunFolder, recipe: Recipe) -> None:
    with atomic_write(folder.recipe, "w") as file:
        file.write(dump_recipe(recipe))


def _record_data(folder: RunFolder, recipe: Recipe, splits: Splits, steps: Sequence[str]) -> None:
    # without training its images are not looked at, and what was found there before still holds
    known = {} if _needs_training_images(recipe, steps) else folder.read_manifest().get("data", {})
    train = known.get("images", {}).get("train", len(splits.train))
    folder.record(
        data={
            "root": str(recipe.data.root.resolve()),
            "images": {"train": train} | {name: len(images) for name, images in splits.masked.items()},
            "left_out": known.get("left_out", {}) | {bad.image_id: bad.reason for bad in splits.bad},
        }
    )
