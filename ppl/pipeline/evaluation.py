"""Step four: masks against the ground truth, over the whole split."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from torch import Tensor

from ppl.cam import CamResult
from ppl.data import PartMasks, TaggedImages
from ppl.errors import PPLFileNotFoundError, PPLValueError
from ppl.io import atomic_write, read_mask
from ppl.io.listing import list_files, normalize_name
from ppl.metrics import ConfusionMatrix, PartCoverage, Scores, ThresholdSweep
from ppl.pipeline.cams import mask_inputs
from ppl.pipeline.folder import RunFolder
from ppl.pipeline.recipe import Recipe
from ppl.pipeline.refinement import has_refined

__all__ = ["score_masks", "score_split"]


def score_split(
    recipe: Recipe, folder: RunFolder, split: str, images: TaggedImages, notes: list[str]
) -> dict[str, float | None]:
    """Score the maps and the masks of a split, and record the scores in the manifest.

    Args:
        recipe: of the run.
        folder: of the run.
        split: its name.
        images: its images; those without a mask are passed over.
        notes: takes the lines that a reader of the scores should know: where the best threshold was chosen, what is not
            scored.

    Returns:
        Shares in [0, 1] by name: `CAM mIoU` at the recipe's background rule with `recall` and `precision` of all
        classes but the background together, `CAM best` at the best constant threshold, `refined mIoU` over the images
        that have a refined mask, and the share of every part that the CAM's mask covers,
        for data sets with masks of parts (`ppl.data.PartMasks`). Empty where no mask has a pixel that counts.

    Raises:
        PPLFileNotFoundError: if the map or the mask of an image is missing.
        PPLValueError: if the masks were not cut from the maps at hand by the recipe's background rule.
    """
    if not folder.is_current(f"masks/{split}", mask_inputs(recipe, folder, split)):
        raise PPLValueError(
            f"the masks of {split} in {folder.path} were not cut by {recipe.cam.background!r} from the maps that are "
            f"there; run `ppl cam {folder.path}` first"
        )
    scored = images.subset(sample.image_id for sample in images if sample.mask is not None)
    _check_there(folder, split, scored)
    sweep = ThresholdSweep(len(images.classes) + 1)
    cam, refined = (ConfusionMatrix(len(images.classes) + 1) for _ in range(2))
    part_masks = PartMasks(recipe.data.root)
    parts, without_parts = PartCoverage(part_masks.names), 0
    per_image: dict[str, float | None] = {}
    final = _refined_masks(recipe, folder, split, scored, notes)
    for sample in scored:
        target = sample.read_mask()
        result = CamResult.load(folder.cams(split) / f"{sample.image_id}.npz")
        mask = read_mask(folder.masks(split) / f"{sample.image_id}.png")
        sweep.update(target, result.maps, result.classes)
        cam.update(target, mask)
        if part_masks:
            part_mask = part_masks.read(sample.image_id)
            if part_mask is None:
                without_parts += 1
            else:
                parts.update(target, mask, part_mask)
        if sample.image_id in final:
            mask = read_mask(final[sample.image_id])
            refined.update(target, mask)
        if not final or sample.image_id in final:  # IoUs of both kinds side by side would rank the kinds
            per_image[sample.image_id] = _iou(len(images.classes) + 1, target, mask)
    if not int(cam.counts.sum()):
        notes.append(f"{recipe.model.mode}, {split}: no pixel of its masks counts (all are 255), so nothing is scored")
        folder.forget_scores(split)
        return {}
    best = sweep.best()
    notes.append(
        f"{recipe.model.mode}, {split}: CAM best is at {best:g}, the best constant threshold, chosen on these very "
        "masks"
    )
    recall, precision = _foreground(cam.counts)
    scores: dict[str, float | None] = {
        "CAM mIoU": cam.compute()["miou"],
        "recall": recall,
        "precision": precision,
        "CAM best": sweep.scores(best)["miou"],
        "refined mIoU": refined.compute()["miou"] if final else None,
    }
    if without_parts < len(scored) and part_masks:
        scores |= parts.compute()
        if without_parts:
            notes.append(
                f"{recipe.model.mode}, {split}: {without_parts} of {len(scored)} images have no file in "
                f"{part_masks.folder.name} and are left out of the coverage of parts"
            )
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
                **({"refined": _per_class(names, refined.compute())} if final else {}),
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


def _check_there(folder: RunFolder, split: str, scored: TaggedImages) -> None:
    for path, suffix in ((folder.cams(split), "npz"), (folder.masks(split), "png")):
        missing = [sample.image_id for sample in scored if not (path / f"{sample.image_id}.{suffix}").exists()]
        if missing:
            raise PPLFileNotFoundError(
                f"{path} lacks {len(missing)} of {len(scored)} files, as {missing[0]}.{suffix}; run "
                f"`ppl cam {folder.path}`"
            )


def _refined_masks(
    recipe: Recipe, folder: RunFolder, split: str, scored: TaggedImages, notes: list[str]
) -> dict[str, Path]:
    """The refined masks that there are, by image, and a note on those that there are not."""
    if not recipe.refine or not folder.refined(split).is_dir():
        return {}
    where, again = f"{recipe.model.mode}, {split}", f"run `ppl refine {folder.path}`"
    if not has_refined(recipe, folder, split):
        notes.append(
            f"{where}: refined masks are not scored, since they were made from other maps, by another background rule "
            f"or by other steps; {again}"
        )
        return {}
    paths = {sample.image_id: folder.refined(split) / f"{sample.image_id}.png" for sample in scored}
    there = {image_id: path for image_id, path in paths.items() if path.exists()}
    if len(there) < len(paths):
        missing = f"{len(paths) - len(there)} of {len(paths)} images have no refined mask"
        notes.append(f"{where}: {missing}{' and are not in refined mIoU' if there else ''}: {again}")
    return there


def score_masks(predictions: str | Path, images: TaggedImages, notes: list[str] | None = None) -> Scores:
    """Score a folder of palette PNGs against the masks of a data set.

    Args:
        predictions: folder with `<image_id>.png`; a missing one counts as all background.
        images: the data set; images without a mask are passed over.
        notes: takes the lines that say how many images have no mask and how many no file.

    Returns:
        Dataset-level scores; see `ppl.metrics.ConfusionMatrix`.

    Raises:
        PPLFileNotFoundError: if there is no such folder, or none of the images has a file in it.
        PPLValueError: if no image has a mask to score against, a file is no mask of its image, or the only values of
            either side are 0 and 255.
    """
    scored = [sample for sample in images if sample.mask is not None]
    if not scored:
        raise PPLValueError(f"{images.name} has no masks to score against; give a data set or a split that has some")
    if len(scored) < len(images) and notes is not None:
        notes.append(f"scored {len(scored)} of {len(images)} images; the others have no mask")
    there = list_files(Path(predictions)) if Path(predictions).is_dir() else {}
    paths = {sample.image_id: there.get(normalize_name(f"{sample.image_id}.png")) for sample in scored}
    missing = [image_id for image_id, path in paths.items() if path is None]
    if len(missing) == len(scored):
        raise PPLFileNotFoundError(
            f"{predictions} holds no {missing[0]}.png nor any other of the {len(scored)} images that have a mask; give "
            "the folder that the PNGs are in"
        )
    if missing and notes is not None:
        notes.append(
            f"{len(missing)} of {len(scored)} images have no file and count as background, as {missing[0]}.png"
        )
    confusion = ConfusionMatrix(len(images.classes) + 1)
    values: dict[str, set[int]] = {"masks": set(), "predictions": set()}
    for sample in scored:
        target, path = sample.read_mask(), paths[sample.image_id]
        try:
            mask = np.zeros_like(target) if path is None else read_mask(path)
            confusion.update(target, mask)
        except PPLValueError as error:
            raise PPLValueError(f"{path}: {error}") from None
        values["masks"].update(np.unique(target).tolist())
        values["predictions"].update(np.unique(mask).tolist())
    for side, found in values.items():
        if 255 in found and found <= {0, 255}:
            raise PPLValueError(
                f"{images.name}: the only values of the {side} are 0 and 255: object or ignore? 255 is not scored; "
                "write 1 for an object of the first class"
            )
    return confusion.compute()


def _iou(num_classes: int, target: npt.NDArray[np.uint8], mask: npt.NDArray[np.uint8]) -> float | None:
    """Mean IoU of one image, over the classes that are in it or were drawn; None where no pixel counts."""
    confusion = ConfusionMatrix(num_classes)
    confusion.update(target, mask)
    iou = confusion.compute()["miou"]
    return None if math.isnan(iou) else round(iou, 5)


def _foreground(counts: Tensor) -> tuple[float, float]:
    """Recall and precision of all classes but the background, counted together."""
    counts = counts.double()
    hits = counts.diagonal()[1:].sum()
    classes = counts.shape[0]
    return (hits / counts[1:].sum()).item(), (hits / counts[:, 1:classes].sum()).item()


def _per_class(names: Sequence[str], scores: Scores) -> dict[str, float | None]:
    values = scores["iou"].tolist()
    return {name: None if math.isnan(iou) else round(iou, 5) for name, iou in zip(names, values, strict=True)}
