"""The evaluation step: CAMs and masks of a split against the true masks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from torch import Tensor

from ppl.cam import CamResult
from ppl.data import PartMasks, TaggedImages
from ppl.errors import PPLError, PPLFileNotFoundError, PPLValueError
from ppl.io import atomic_write, read_mask
from ppl.metrics import ConfusionMatrix, PartCoverage, Scores, ThresholdSweep
from ppl.pipeline.cams import outdated_cams
from ppl.pipeline.masks import outdated_masks
from ppl.pipeline.recipe import Recipe
from ppl.pipeline.refinement import finished_refined
from ppl.pipeline.run_folder import RunFolder
from ppl.pipeline.segmentation import finished_predictions

__all__ = ["score_split"]


def score_split(
    recipe: Recipe, folder: RunFolder, split: str, images: TaggedImages, notes: list[str]
) -> dict[str, float | None]:
    """Score the CAMs and the masks of a split, and write the scores into the manifest.

    Args:
        recipe: the recipe of the run.
        folder: of the run.
        split: name of the split in the run folder.
        images: the images of the split; those without a mask are left out.
        notes: gets the lines that a reader of the scores must know: where the best threshold was chosen, and how many
            images are not scored.

    Returns:
        Shares in [0, 1] by name: `CAM mIoU` at the recipe's background rule; `recall` and `precision` of all classes
        but the background, counted together; `CAM best` at the best constant threshold; `refined mIoU` over the images
        that have a refined mask; `segmenter mIoU` over the images that the segmentation network has segmented, without
        their tags; and the share of each part that the CAM's mask covers, if the data set has part masks.
        Empty if every pixel of the true masks is 255.

    Raises:
        PPLFileNotFoundError: if the CAM file or the mask of an image is missing.
        PPLValueError: if CAM files or masks are outdated.
    """
    scored = images.subset(sample.image_id for sample in images if sample.mask is not None)
    _check_current(recipe, folder, split, scored)
    where, num_classes = f"{recipe.model.mode}, {split}", len(images.classes) + 1
    sweep = ThresholdSweep(num_classes)
    cam, refined, network = (ConfusionMatrix(num_classes) for _ in range(3))
    per_image: dict[str, float | None] = {}
    part_masks = PartMasks(recipe.data.root)
    parts, without_parts = PartCoverage(part_masks.names), []
    final = _refined_masks(recipe, folder, split, scored, notes)
    predicted = finished_predictions(recipe, folder, split, scored)
    for sample in scored:
        target = sample.read_mask()
        result = CamResult.load(folder.cams(split) / f"{sample.image_id}.npz")
        mask = read_mask(folder.masks(split) / f"{sample.image_id}.png")
        sweep.update(target, result.maps, result.classes)
        cam.update(target, mask)
        if part_masks:
            without_parts += _cover_parts(parts, part_masks, sample.image_id, target, mask)
        if sample.image_id in predicted:
            network.update(target, read_mask(predicted[sample.image_id]))
        if sample.image_id in final:
            mask = read_mask(final[sample.image_id])
            refined.update(target, mask)
        if not final or sample.image_id in final:  # a list with IoUs of CAMs and of refined masks would rank the two
            per_image[sample.image_id] = _iou(num_classes, target, mask)
    if not int(cam.counts.sum()):
        notes.append(f"{where}: no pixel of its masks counts (all are 255), so nothing is scored")
        folder.remove_scores(lambda other: other == split)
        return {}
    best = sweep.best()
    notes.append(f"{where}: CAM best is at {best:g}, the best constant threshold, chosen on these very masks")
    if len(scored) < len(images):
        notes.append(f"{where}: scores are of {len(scored)} of {len(images)} images; the others have no mask")
    if without_parts:
        notes.append(
            f"{where}: {len(without_parts)} of {len(scored)} images have no file in {part_masks.folder.name} that "
            f"counts and are left out of the coverage of parts, as {without_parts[0]}"
        )
    recall, precision = _foreground(cam.counts)
    scores: dict[str, float | None] = {
        "CAM mIoU": cam.compute()["miou"],
        "recall": recall,
        "precision": precision,
        "CAM best": sweep.scores(best)["miou"],
        "refined mIoU": refined.compute()["miou"] if final else None,
        "segmenter mIoU": network.compute()["miou"] if predicted else None,
        **(parts.compute() if part_masks and len(without_parts) < len(scored) else {}),
    }
    scores = {name: None if value is None or math.isnan(value) else round(value, 5) for name, value in scores.items()}
    names = ("background", *images.classes)
    per_class = {"CAM": _per_class(names, cam.compute())}
    if final:
        per_class["refined"] = _per_class(names, refined.compute())
    if predicted:
        per_class["segmenter"] = _per_class(names, network.compute())
    with atomic_write(folder.path / f"thresholds_{split}.csv", "w") as file:
        file.write("threshold,miou\n")
        file.writelines(f"{t:.2f},{miou:.5f}\n" for t, miou in zip(sweep.thresholds, sweep.miou(), strict=True))
    rule = {"default": recipe.cam.background, "best": best, "best_chosen_on": split, "images": len(scored)}
    folder.record(
        mode=recipe.model.mode,
        scores={split: scores},
        scored={split: {"images": len(scored), "of": len(images)}},
        per_image={split: per_image},
        per_class={split: per_class},
        thresholds={split: rule},
    )
    return scores


def _cover_parts(
    parts: PartCoverage,
    part_masks: PartMasks,
    image_id: str,
    target: npt.NDArray[np.uint8],
    mask: npt.NDArray[np.uint8],
) -> list[str]:
    """Count the parts of an image. Return an empty list, or the reason why the image has no part mask to count."""
    try:
        part_mask = part_masks.read(image_id)
        if part_mask is None:
            return [f"{image_id}: there is no file in {part_masks.folder.name}"]
        parts.update(target, mask, part_mask)
    except PPLError as error:
        return [f"{image_id}: {error}"]
    return []


def _check_current(recipe: Recipe, folder: RunFolder, split: str, scored: TaggedImages) -> None:
    """Raise if a CAM file or a mask of the scored images is missing or outdated."""
    again = f"run `ppl cam {folder.path}`"
    if not folder.cams(split).is_dir():
        raise PPLValueError(f"{folder.path} has no CAMs of {split} yet; {again} first")
    for path, suffix in ((folder.cams(split), "npz"), (folder.masks(split), "png")):
        missing = [sample.image_id for sample in scored if not (path / f"{sample.image_id}.{suffix}").exists()]
        if missing:
            raise PPLFileNotFoundError(
                f"{path} lacks {len(missing)} of {len(scored)} files, as {missing[0]}.{suffix}; {again}"
            )
    outdated = outdated_cams(recipe, folder, split, scored)
    if outdated:
        raise PPLValueError(
            f"{len(outdated)} CAM files of {split} in {folder.path}, as {outdated[0]}.npz, were made from other "
            f"weights, settings, pictures or tags, or have been replaced; {again} first"
        )
    if outdated_masks(recipe, folder, split, scored):
        raise PPLValueError(
            f"the masks of {split} in {folder.path} were not cut by {recipe.cam.background!r} from the maps that are "
            f"there; {again} first"
        )


def _refined_masks(
    recipe: Recipe, folder: RunFolder, split: str, scored: TaggedImages, notes: list[str]
) -> dict[str, Path]:
    """Return the refined masks that are finished, by image id, and note how many are missing or outdated."""
    if not recipe.refine or not folder.refined(split).is_dir():
        return {}
    finished = finished_refined(recipe, folder, split, scored)
    where, again = f"{recipe.model.mode}, {split}", f"run `ppl refine {folder.path}`"
    there = [sample for sample in scored if (folder.refined(split) / f"{sample.image_id}.png").exists()]
    if len(finished) < len(there):
        notes.append(
            f"{where}: {len(there) - len(finished)} refined masks are not scored, since they were made from other "
            f"maps, by another background rule or by other refiners: {again}"
        )
    if len(there) < len(scored):
        missing = f"{len(scored) - len(there)} of {len(scored)} images have no refined mask"
        notes.append(f"{where}: {missing}{' and are not in refined mIoU' if finished else ''}: {again}")
    return finished


def _iou(num_classes: int, target: npt.NDArray[np.uint8], mask: npt.NDArray[np.uint8]) -> float | None:
    """Return the mean IoU of one image over the classes of its two masks, or None if every pixel is 255."""
    confusion = ConfusionMatrix(num_classes)
    confusion.update(target, mask)
    iou = confusion.compute()["miou"]
    return None if math.isnan(iou) else round(iou, 5)


def _foreground(counts: Tensor) -> tuple[float, float]:
    """Return the recall and the precision of all classes but the background, counted together."""
    counts = counts.double()
    hits = counts.diagonal()[1:].sum()
    classes = counts.shape[0]
    return (hits / counts[1:].sum()).item(), (hits / counts[:, 1:classes].sum()).item()


def _per_class(names: Sequence[str], scores: Scores) -> dict[str, float | None]:
    values = scores["iou"].tolist()
    return {name: None if math.isnan(iou) else round(iou, 5) for name, iou in zip(names, values, strict=True)}
