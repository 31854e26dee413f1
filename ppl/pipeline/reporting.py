"""The report step: one picture that shows images and masks side by side, and an HTML page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ppl.cam import CamResult
from ppl.data import TaggedImages
from ppl.io import read_mask
from ppl.pipeline.recipe import Recipe
from ppl.pipeline.refinement import finished_refined
from ppl.pipeline.run_folder import RunFolder
from ppl.pipeline.segmentation import finished_predictions
from ppl.pipeline.splits import Splits, spread_tagged
from ppl.report import Gallery, GridRow, Picture, Stages, image_grid, overlay, overlay_mask, read_run, write_report
from ppl.report.parts import thumbnail

__all__ = ["make_report"]

_ROWS = 12
"""Images that are shown whatever their results are."""
_EXTREMES = 4
"""Images that are shown as the worst ones, and as the best ones."""
_TRUTH = "ground truth"


def make_report(recipe: Recipe, folder: RunFolder, splits: Splits, modes: Sequence[str]) -> tuple[Path, Path]:
    """Write `image_grid.png` and `report.html` of a finished run.

    Both show tagged images at equal distances over the first split, in the order of the split. Results play no part in
    the choice. The page shows the worst and the best images too, if these are not all images that have a score.

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
    chosen = [sample.image_id for sample in spread_tagged(images, _ROWS)]
    ious = _ious(folder, split, images)
    ranked = sorted(ious, key=lambda name: ious[name])
    count = _EXTREMES if len(ranked) > max(_ROWS, 2 * _EXTREMES) else 0  # otherwise all of them may be shown anyway
    worst, best = ranked[:count], ranked[::-1][:count]
    ids = dict.fromkeys([*chosen, *worst, *best])
    stages = _read_stages(recipe, folders, split, images.subset(ids), ious)
    titles = [title for title in _titles(modes) if any(title in _by_title(found) for found in stages.values())]
    rows = [
        GridRow(f"{name}: {stages[name].caption}", [_by_title(stages[name]).get(title) for title in titles])
        for name in chosen
    ]
    title = f"{recipe.data.root.resolve().name}, {split}"
    image_grid(rows, titles, folder.image_grid, classes=images.classes, title=title)
    last = next(title for title in reversed(titles) if title != _TRUTH)
    ranked_by = "refined mask" if "refined mask" in titles else f"CAM, {recipe.model.mode}"  # as `score_split` chooses
    spread_note = "At equal distances over the split. A slider moves from image to masks."
    ranks_note = "By the mean IoU of the image, of refined masks if there are any; the sliders start with them."
    galleries = [
        Gallery(f"{heading} of {split}", [stages[name] for name in names], note, start, classes)
        for heading, names, note, start, classes in (
            ("Images", chosen, spread_note, last, images.classes),
            ("Worst images", worst, ranks_note, ranked_by, ()),
            ("Best images", best, ranks_note, ranked_by, ()),
        )
        if names
    ]
    return folder.image_grid, write_report(read_run(folder.path, modes, galleries), folder.report)


def _titles(modes: Sequence[str]) -> list[str]:
    return ["image", *(f"CAM, {mode}" for mode in modes), "refined mask", "segmenter", _TRUTH]


def _ious(folder: RunFolder, split: str, images: TaggedImages) -> dict[str, float]:
    """Return, by image id, the mean IoU of the images that have one."""
    known = (folder.read_manifest().get("per_image") or {}).get(split) or {}
    return {name: known[name] for name in images.image_ids if known.get(name) is not None}


def _read_stages(
    recipe: Recipe, folders: dict[str, RunFolder], split: str, images: TaggedImages, ious: dict[str, float]
) -> dict[str, Stages]:
    """Return, by image id, the pictures of all stages that are there."""
    folder = folders[recipe.model.mode]
    refined = finished_refined(recipe, folder, split, images)
    predicted = finished_predictions(recipe, folder, split, images)
    stages = {}
    for sample in images:
        image, name = np.asarray(sample.read_image()), sample.image_id
        found = {"image": image}
        found |= {f"CAM, {mode}": _cam(image, arm.cams(split) / f"{name}.npz") for mode, arm in folders.items()}
        for title, made in (("refined mask", refined), ("segmenter", predicted)):
            if name in made:
                found[title] = overlay_mask(image, read_mask(made[name]))
        if sample.mask is not None:
            found[_TRUTH] = overlay_mask(image, sample.read_mask())
        pictures = [Picture(title, thumbnail(picture)) for title, picture in found.items()]
        kind = "refined" if refined else "CAM"
        score = [f"{kind} mIoU {100 * ious[name]:.1f}"] if name in ious else []
        tags = ", ".join(images.classes[label] for label in sample.labels)
        stages[name] = Stages(name, pictures, "; ".join([tags, *score]))
    return stages


def _by_title(stages: Stages) -> dict[str, Any]:
    return {picture.title: picture.image for picture in stages.pictures}


def _cam(image: Any, path: Path) -> Any:
    result = CamResult.load(path)
    return overlay(image, result.maps.numpy(), result.classes.numpy())
