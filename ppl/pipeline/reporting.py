"""The report step: one picture that shows images and masks side by side, and an HTML page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ppl.cam import CamResult
from ppl.data import Sample, TaggedImages
from ppl.io import read_mask
from ppl.pipeline.recipe import Recipe
from ppl.pipeline.refinement import finished_refined
from ppl.pipeline.run_folder import RunFolder
from ppl.pipeline.segmentation import finished_predictions
from ppl.pipeline.splits import Splits
from ppl.report import GridRow, image_grid, overlay, overlay_mask, read_run, write_report

__all__ = ["make_report"]

_ROWS = 12


def make_report(recipe: Recipe, folder: RunFolder, splits: Splits, modes: Sequence[str]) -> tuple[Path, Path]:
    """Write `image_grid.png` and `report.html` of a finished run.

    The picture shows tagged images at equal distances over the first split, in the order of the split. Results play no
    part in the choice.

    Args:
        recipe: the recipe of the run.
        folder: of the run.
        splits: the images of the run.
        modes: the compared modes, the recipe's own mode last.

    Returns:
        The paths of the two files.
    """
    folders = {mode: folder if mode == recipe.model.mode else folder.comparison(mode) for mode in modes}
    split, images = next(iter(splits.masked.items()))
    shown = _spread(images, _ROWS)
    has_truth = any(sample.mask is not None for sample in shown)
    subset = images.subset(sample.image_id for sample in shown)
    refined = finished_refined(recipe, folder, split, subset)
    predicted = finished_predictions(recipe, folder, split, subset)
    columns = [
        "image",
        *(["ground truth"] if has_truth else []),
        *(f"CAM, {mode}" for mode in modes),
        *(["refined mask"] if refined else []),
        *(["segmenter"] if predicted else []),
    ]
    rows = []
    for sample in shown:
        image = np.asarray(sample.read_image())
        cells: list[Any] = [image]
        if has_truth:
            cells.append(None if sample.mask is None else overlay_mask(image, sample.read_mask()))
        cells += [_cam(image, folders[mode].cams(split) / f"{sample.image_id}.npz") for mode in modes]
        for made in filter(None, (refined, predicted)):
            path = made.get(sample.image_id)
            cells.append(None if path is None else overlay_mask(image, read_mask(path)))
        tags = ", ".join(images.classes[label] for label in sample.labels)
        rows.append(GridRow(f"{sample.image_id}: {tags}", cells))
    image_grid(
        rows, columns, folder.image_grid, classes=images.classes, title=f"{recipe.data.root.resolve().name}, {split}"
    )
    return folder.image_grid, write_report(read_run(folder.path, modes), folder.report)


def _spread(images: TaggedImages, count: int) -> list[Sample]:
    """Return tagged images at equal distances over the split; only images with masks if there are any."""
    tagged = [sample for sample in images if sample.labels]
    chosen = [sample for sample in tagged if sample.mask is not None] or tagged or list(images)
    return [chosen[index] for index in np.linspace(0, len(chosen) - 1, min(count, len(chosen))).round().astype(int)]


def _cam(image: Any, path: Path) -> Any:
    result = CamResult.load(path)
    return overlay(image, result.maps.numpy(), result.classes.numpy())
