"""Step four: masks against the ground truth, over the whole split."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from torch import Tensor

from ppl.cam import CamResult
from ppl.data import TaggedImages
from ppl.io import atomic_write, read_mask
from ppl.metrics import ConfusionMatrix, PartCoverage, Scores, ThresholdSweep
from ppl.pipeline.folder import RunFolder
from ppl.pipeline.recipe import Recipe

__all__ = ["score_masks", "score_split"]

PARTS = ("head", "body")
"""Names of the parts 1, 2 in a data set's `masks_parts/`, where there is one: the built-in set's."""


def score_split(
    recipe: Recipe, folder: RunFolder, split: str, images: TaggedImages, notes: list[str]
) -> dict[str, float | None]:
    """Score the maps and the masks of a split, and record the scores in the manifest.

    Args:
        recipe: of the run.
        folder: of the run.
        split: its name.
        images: its images; those without a mask are passed over.
        notes: takes the line that says where the best threshold was chosen.

    Returns:
        Shares in [0, 1] by name: `CAM mIoU` at the recipe's background rule with `recall` and `precision` of all
        classes but the background together, `CAM best` at the best constant threshold, `refined mIoU`, and `head` and
        `body`, the share of the parts that the CAM's mask covers, for the built-in set.
    """
    scored = images.subset(sample.stem for sample in images if sample.mask is not None)
    sweep = ThresholdSweep(len(images.classes) + 1)
    cam, refined = (ConfusionMatrix(len(images.classes) + 1) for _ in range(2))
    parts = PartCoverage(PARTS)
    per_image: dict[str, float] = {}
    parts_folder = recipe.data.root / "masks_parts"
    has_refined = bool(recipe.refine) and folder.refined(split).is_dir()
    for sample in scored:
        target = sample.read_mask()
        result = CamResult.load(folder.cams(split) / f"{sample.stem}.npz")
        mask = read_mask(folder.masks(split) / f"{sample.stem}.png")
        sweep.update(target, result.maps, result.classes)
        cam.update(target, mask)
        path = folder.refined(split) / f"{sample.stem}.png"
        final = read_mask(path) if has_refined and path.exists() else mask
        if has_refined:
            refined.update(target, final)
        per_image[sample.stem] = _iou(len(images.classes) + 1, target, final)
        if parts_folder.is_dir():
            parts.update(target, mask, read_mask(parts_folder / f"{sample.stem}.png"))
    best = sweep.best()
    notes.append(
        f"{recipe.model.mode}, {split}: CAM best is at threshold {best:g}, chosen on {split} itself: an upper bound"
    )
    recall, precision = _foreground(cam.counts)
    scores: dict[str, float | None] = {
        "CAM mIoU": cam.compute()["miou"],
        "recall": recall,
        "precision": precision,
        "CAM best": sweep.scores(best)["miou"],
        "refined mIoU": refined.compute()["miou"] if has_refined else None,
    }
    if parts_folder.is_dir():
        scores |= parts.compute()
    scores = {name: None if value is None or math.isnan(value) else round(value, 5) for name, value in scores.items()}
    with atomic_write(folder.path / f"thresholds_{split}.csv", "w") as file:
        file.write("threshold,miou\n")
        file.writelines(f"{t:.2f},{miou:.5f}\n" for t, miou in zip(sweep.thresholds, sweep.miou(), strict=True))
    names = ("background", *images.classes)
    folder.record(
        mode=recipe.model.mode,
        scores={split: scores},
        per_image={split: per_image},
        per_class={
            split: {
                "CAM": _per_class(names, cam.compute()),
                **({"refined": _per_class(names, refined.compute())} if has_refined else {}),
            }
        },
        thresholds={
            split: {
                "default": recipe.cam.background,
                "best": best,
                "best_chosen_on": split,
                "images": len(scored),
            }
        },
    )
    return scores


def score_masks(predictions: Path, images: TaggedImages) -> Scores:
    """Score a folder of palette PNGs against the masks of a data set.

    Args:
        predictions: folder with `<stem>.png`; a missing one counts as all background.
        images: the data set; images without a mask are passed over.

    Returns:
        Dataset-level scores; see `ppl.metrics.ConfusionMatrix`.
    """
    confusion = ConfusionMatrix(len(images.classes) + 1)
    for sample in images:
        if sample.mask is None:
            continue
        target, path = sample.read_mask(), predictions / f"{sample.stem}.png"
        confusion.update(target, read_mask(path) if path.exists() else np.zeros_like(target))
    return confusion.compute()


def _iou(num_classes: int, target: npt.NDArray[np.uint8], mask: npt.NDArray[np.uint8]) -> float:
    """Mean IoU of one image, over the classes that are in it or were drawn."""
    confusion = ConfusionMatrix(num_classes)
    confusion.update(target, mask)
    return round(confusion.compute()["miou"], 5)


def _foreground(counts: Tensor) -> tuple[float, float]:
    """Recall and precision of all classes but the background, counted together."""
    counts = counts.double()
    hits = counts.diagonal()[1:].sum()
    classes = counts.shape[0]
    return (hits / counts[1:].sum()).item(), (hits / counts[:, 1:classes].sum()).item()


def _per_class(names: Sequence[str], scores: Scores) -> dict[str, float | None]:
    values = scores["iou"].tolist()
    return {name: None if math.isnan(iou) else round(iou, 5) for name, iou in zip(names, values, strict=True)}
