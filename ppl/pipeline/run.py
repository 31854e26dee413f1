"""The steps of a run in their order, for one model or for several that are compared."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ppl.data import Sample, TaggedImages
from ppl.errors import PPLValueError
from ppl.io import atomic_write
from ppl.io.fingerprint import fingerprint
from ppl.parallel import current_share
from ppl.pipeline.affinity import learn_affinities
from ppl.pipeline.cams import make_cams, outdated_cams
from ppl.pipeline.device import torch_device
from ppl.pipeline.evaluation import score_split
from ppl.pipeline.faithfulness import measure_faithfulness
from ppl.pipeline.learned import learned_files
from ppl.pipeline.masks import make_masks
from ppl.pipeline.pixels import fit_pixels
from ppl.pipeline.recipe import Recipe
from ppl.pipeline.recipe_file import dump_recipe
from ppl.pipeline.refinement import refine_masks
from ppl.pipeline.reporting import make_report
from ppl.pipeline.run_folder import RunFolder
from ppl.pipeline.segmentation import build_segmenter, predict_masks, train_segmenter
from ppl.pipeline.splits import Splits, open_splits
from ppl.pipeline.training import check_models, train_classifier, with_mode
from ppl.refine import parse_refiners
from ppl.refine.specs import check_files
from ppl.segment import SegmentConfig

__all__ = ["STEPS", "RunResult", "run_recipe"]

STEPS = ("train", "cam", "refine", "segment", "evaluate", "report")
"""The steps of a run, in their order."""

Log = Callable[[str], None]
"""A function that takes one line of text."""


@dataclass
class RunResult:
    """The results of a run.

    Attributes:
        scores: by mode and split, the scores of the step "evaluate"; without entries for splits that have no masks.
        scored: by split, the number of images that the scores are of.
        splits: by name, the number of images of the splits that masks were made of.
        notes: lines that a reader of the scores must know.
        image_grid: path of the picture with images and masks side by side, if the step "report" was done.
        report: path of the HTML page, likewise.
    """

    scores: dict[str, dict[str, dict[str, float | None]]] = field(default_factory=dict)
    scored: dict[str, int] = field(default_factory=dict)
    splits: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    image_grid: Path | None = None
    report: Path | None = None


def _discard(line: str) -> None:
    """Take a line and do nothing with it."""


def run_recipe(
    recipe: Recipe,
    out: str | Path,
    steps: Sequence[str] = STEPS,
    *,
    progress: bool = True,
    log: Log = _discard,
) -> RunResult:
    """Do the steps of a recipe in a run folder. Results that are finished, from inputs of the same content, stay.

    The processes of a launch train together and share the images of all other steps, see `ppl.parallel.Share`. The
    first of them alone scores, and writes manifest and report. Inside `ppl.parallel.shard` the steps "cam" and "refine"
    make the files of one shard, and nothing else.

    Args:
        recipe: the recipe, see `check_recipe` and `load_recipe`.
        out: the run folder; made if it is missing.
        steps: some of `STEPS`.
        progress: show progress bars, if the error stream is a terminal.
        log: gets one line as each step ends.

    Returns:
        Scores, pictures and the report; the last two and the scores in the first process of a launch alone.

    Raises:
        PPLFileNotFoundError: if a file that the recipe names is missing.
        PPLValueError: if a step needs another step that has not been done, a file is not what the recipe needs, or a
            shard is to do a step that needs all images.
        FolderInUseError: if another process is at work in `out`.
    """
    for step in steps:
        if step not in STEPS:
            raise PPLValueError(f"no step {step!r}; there are: {', '.join(STEPS)}")
        if current_share().is_shard and step not in ("cam", "refine"):
            raise PPLValueError(f"the step {step!r} needs all images, so a shard cannot do it: only cam and refine")
    torch_device(recipe.device)
    if "refine" in steps:
        to_be_fitted = ("pixel_classifier",) if recipe.fits_pixels else ()
        check_files([spec for spec in parse_refiners(recipe.refine) if spec.name not in to_be_fitted])
    folder = RunFolder(Path(out))
    folder.make()
    with folder.lock(fingerprint([list(steps), dump_recipe(recipe)])):
        return _run(recipe, folder, steps, progress, log)


def _run(recipe: Recipe, folder: RunFolder, steps: Sequence[str], progress: bool, log: Log) -> RunResult:
    """Do the steps of all models, with the lock of the folder held."""
    splits = open_splits(recipe.data, training=_needs_training_images(recipe, steps), progress=progress)
    result = RunResult(
        splits={name: len(images) for name, images in splits.masked.items()},
        scored={name: len(_with_mask(images)) for name, images in splits.masked.items()},
        notes=list(splits.notes),
    )
    own, share = recipe.model.mode, current_share()
    modes: list[str] = [*dict.fromkeys(mode for mode in recipe.compare if mode != own), own]
    arms = {mode: folder if mode == own else folder.comparison(mode) for mode in modes}
    if share.writes_totals:
        folder.remove_abandoned_files()
    if "train" in steps:
        check_models(recipe, arms, splits, maps="cam" in steps)
    if "segment" in steps and recipe.segment is not None:
        build_segmenter(recipe, recipe.segment, len(splits.train.classes))
    if share.writes_totals and not folder.recipe.exists():
        _write_recipe(folder, recipe)
    _record_data(folder, recipe, splits, steps)
    for mode, arm in arms.items():
        alone = with_mode(recipe, mode)
        dropped = sorted(set(recipe.train.auxiliary) - set(alone.train.auxiliary))
        if dropped:
            result.notes.append(f"{mode}: trained without {', '.join(dropped)}, for which it has no patches")
        result.scores[mode] = _run_model(alone, arm, splits, steps, progress, log, result.notes)
        if share.writes_totals:  # only now: a recipe that a step refuses must not stay
            _write_recipe(arm, recipe if mode == own else alone)
        arm.remove_scores(lambda split: split not in splits.masked)  # of splits that newer settings may not hold for
        arm.remove_scores(lambda split: not result.scored.get(split), by_masks=True)  # the true masks may be gone
    if "evaluate" in steps:
        folder.record(notes=result.notes)
    if "report" in steps and share.writes_totals:
        result.image_grid, result.report = make_report(recipe, folder, splits, modes)
    return result


def _run_model(
    recipe: Recipe, folder: RunFolder, splits: Splits, steps: Sequence[str], progress: bool, log: Log, notes: list[str]
) -> dict[str, dict[str, float | None]]:
    """Do the steps of one model and return its scores by split."""
    mode = recipe.model.mode
    if "train" in steps:
        summary = train_classifier(recipe, folder, splits.train, splits.val, progress=progress)
        score = "" if summary.best_score is None else f", best validation mAP {100 * summary.best_score:.1f}"
        log(f"{mode}: trained {summary.epochs} epochs in {summary.seconds:.0f} s{score}")
    elif not folder.weights(recipe.cam.checkpoint).exists():
        raise PPLValueError(f"{folder.path} holds no trained model yet; run `ppl train` or `ppl run` first")
    if "refine" in steps:
        _learn_from_cams(recipe, folder, splits, progress, log)
    for split, images in splits.masked.items():
        if "cam" in steps:
            made = make_cams(recipe, folder, split, images, progress=progress)
            log(f"{mode}: maps of {len(images)} images of {split} ({made} new)")
        elif "refine" in steps:
            _check_cams(recipe, folder, split, images, notes)
        if "cam" in steps or "refine" in steps:  # both commands may change the background rule
            for bad in make_masks(recipe, folder, split, images, progress=progress):
                log(f"{mode}: no mask: {bad.image_id}: {bad.reason}")
        if "refine" in steps:
            _refine(recipe, folder, split, images, progress, log)
    if "segment" in steps and recipe.segment is not None:
        _segment(recipe, recipe.segment, folder, splits, progress, log)
    return _score(recipe, folder, splits, notes) if "evaluate" in steps else {}


def _learn_from_cams(recipe: Recipe, folder: RunFolder, splits: Splits, progress: bool, log: Log) -> None:
    """Learn the networks that refiners need; an array job finds them learned."""
    mode = recipe.model.mode
    if current_share().is_shard:
        for refiner, (_, path) in learned_files(recipe, folder).items():
            if not path.is_file():
                raise PPLValueError(
                    f"{folder.path} has no network for {refiner} yet, which needs all images: refine without shards"
                )
        return
    if recipe.affinity is not None:
        learn_affinities(recipe, recipe.affinity, folder, splits.train, progress=progress)
        log(f"{mode}: affinities learned from {len(splits.train)} training images")
    if recipe.fits_pixels:
        fit_pixels(recipe, folder, splits.train, progress=progress)
        found = folder.read_manifest()["pixels"]
        log(f"{mode}: pixel classifier fitted to {found['images']} training images")
        if not found.get("useful", True):
            log(
                f"{mode}: the pixel classifier is not used: its correlation with the masks of images that it was not "
                f"fitted to is {found['agreement']:.2f}, below pixels.min_agreement={recipe.pixels.min_agreement:g}"
            )


def _score(recipe: Recipe, folder: RunFolder, splits: Splits, notes: list[str]) -> dict[str, dict[str, float | None]]:
    """Score in the first process while the others wait."""
    share = current_share()
    scores = {}
    if share.writes_totals:
        for split, images in splits.masked.items():
            measure_faithfulness(recipe, folder, split, images)
        scores = {
            split: score_split(recipe, folder, split, images, notes)
            for split, images in splits.masked.items()
            if _with_mask(images)
        }
    found: dict[str, dict[str, float | None]] = share.gather(scores)[0]
    return found


def _refine(recipe: Recipe, folder: RunFolder, split: str, images: TaggedImages, progress: bool, log: Log) -> None:
    mode = recipe.model.mode
    if not recipe.refine:
        folder.record(refinement=[], refinement_scores={split: []})
        return
    refined = refine_masks(recipe, folder, split, images, progress=progress)
    log(f"{mode}: refined {refined.done + refined.skipped} masks of {split} ({refined.done} new)")
    for bad in refined.bad:
        log(f"{mode}: not refined: {bad.image_id}: {bad.reason}")


def _segment(
    recipe: Recipe, settings: SegmentConfig, folder: RunFolder, splits: Splits, progress: bool, log: Log
) -> None:
    mode = recipe.model.mode
    summary = train_segmenter(recipe, settings, folder, splits.train, splits.val, progress=progress)
    if summary is not None:
        score = "" if summary.best_score is None else f", validation mIoU {100 * summary.history[-1]['val_mIoU']:.1f}"
        log(f"{mode}: segmentation network trained {summary.epochs} epochs in {summary.seconds:.0f} s{score}")
    for split, images in splits.masked.items():
        made = predict_masks(recipe, settings, folder, split, images, progress=progress)
        log(f"{mode}: {len(images)} images of {split} segmented ({made} new)")


def _check_cams(recipe: Recipe, folder: RunFolder, split: str, images: TaggedImages, notes: list[str]) -> None:
    """Raise if a split has no CAMs, and note if some of them are outdated."""
    if not folder.cams(split).is_dir():
        raise PPLValueError(f"{folder.path} has no CAMs of {split} yet; run `ppl cam` or `ppl run` first")
    share = current_share()
    outdated = [
        name for part in share.gather(outdated_cams(recipe, folder, split, images.part(share))) for name in part
    ]
    if outdated:
        notes.append(
            f"{recipe.model.mode}: {len(outdated)} of {len(images)} CAM files of {split}, as {outdated[0]}.npz, are "
            f"missing or were made from other weights, settings, pictures or tags: run `ppl cam {folder.path}`"
        )


def _with_mask(images: TaggedImages) -> list[Sample]:
    return [sample for sample in images if sample.mask is not None]


def _needs_training_images(recipe: Recipe, steps: Sequence[str]) -> bool:
    return not current_share().is_shard and (
        "train" in steps
        or ("refine" in steps and recipe.learns_from_cams)
        or ("segment" in steps and recipe.segment is not None)
    )


def _write_recipe(folder: RunFolder, recipe: Recipe) -> None:
    with atomic_write(folder.recipe, "w") as file:
        file.write(dump_recipe(recipe))


def _record_data(folder: RunFolder, recipe: Recipe, splits: Splits, steps: Sequence[str]) -> None:
    # a call that does not train has not read the training images, so the earlier findings about them still hold
    known = {} if _needs_training_images(recipe, steps) else folder.read_manifest().get("data", {})
    name = recipe.data.train or "train"
    train = known.get("images", {}).get(name, len(splits.train))
    folder.record(
        data={
            "root": str(recipe.data.root.resolve()),
            "images": {name: train} | {name: len(images) for name, images in splits.masked.items()},
            "left_out": known.get("left_out", {}) | {bad.image_id: bad.reason for bad in splits.bad},
        }
    )
