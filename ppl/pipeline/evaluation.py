"""The evaluation step: CAMs and masks of a split against the true masks."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from ppl.cam import CamResult
from ppl.data import PartMasks, TaggedImages
from ppl.errors import PPLFileNotFoundError, PPLValueError
from ppl.io import atomic_write, read_mask
from ppl.metrics import ThresholdSweep
from ppl.pipeline.cams import outdated_cams
from ppl.pipeline.masks import outdated_masks
from ppl.pipeline.recipe import Recipe
from ppl.pipeline.refinement import finished_refined
from ppl.pipeline.run_folder import RunFolder
from ppl.pipeline.segmentation import finished_predictions
from ppl.pipeline.split_counts import SplitCounts

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
    where = f"{recipe.model.mode}, {split}"
    part_masks = PartMasks(recipe.data.root)
    counts = SplitCounts(len(images.classes) + 1, part_masks)
    per_image: dict[str, float | None] = {}
    refined = _refined_masks(recipe, folder, split, scored, notes)
    predicted = finished_predictions(recipe, folder, split, scored)
    for sample in scored:
        name, target = sample.image_id, sample.read_mask()
        masks = {"CAM": read_mask(folder.masks(split) / f"{name}.png")}
        masks |= {"refined": read_mask(refined[name])} if name in refined else {}
        masks |= {"segmenter": read_mask(predicted[name])} if name in predicted else {}
        counts.add(name, target, CamResult.load(folder.cams(split) / f"{name}.npz"), masks)
        kind = "refined" if refined else "CAM"  # one kind for all: a mixed list would rank CAMs against refined masks
        if kind in masks:
            per_image[name] = counts.image_iou(target, masks[kind])
    if counts.is_empty:
        notes.append(f"{where}: no pixel of its masks counts (all are 255), so nothing is scored")
        folder.remove_scores(lambda other: other == split)
        return {}
    best = counts.sweep.best()
    notes.append(f"{where}: CAM best is at {best:g}, the best constant threshold, chosen on these very masks")
    if len(scored) < len(images):
        notes.append(f"{where}: scores are of {len(scored)} of {len(images)} images; the others have no mask")
    if counts.without_parts:
        notes.append(
            f"{where}: {len(counts.without_parts)} of {len(scored)} images have no file in {part_masks.folder.name} "
            f"that counts and are left out of the coverage of parts, as {counts.without_parts[0]}"
        )
    _write_thresholds(folder.path / f"thresholds_{split}.csv", counts.sweep)
    _write_confusions(folder.path / f"confusion_{split}.csv", ("background", *images.classes), counts)
    scores = counts.scores()
    rule = {"default": recipe.cam.background, "best": best, "best_chosen_on": split, "images": len(scored)}
    folder.record(
        mode=recipe.model.mode,
        scores={split: scores},
        scored={split: {"images": len(scored), "of": len(images)}},
        per_image={split: per_image},
        per_class={split: counts.per_class(("background", *images.classes))},
        thresholds={split: rule},
    )
    return scores


def _write_thresholds(path: Path, sweep: ThresholdSweep) -> None:
    with atomic_write(path, "w") as file:
        file.write("threshold,miou\n")
        file.writelines(f"{t:.2f},{miou:.5f}\n" for t, miou in zip(sweep.thresholds, sweep.miou(), strict=True))


def _write_confusions(path: Path, names: Sequence[str], counts: SplitCounts) -> None:
    """Write the pixels by kind of mask, true class and predicted class; the last column counts ignored predictions."""
    with atomic_write(path, "w") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(["masks", "true class", *names, "ignored"])
        for kind, matrix in counts.matrices.items():
            rows.writerows([kind, name, *row] for name, row in zip(names, matrix.counts.tolist(), strict=True))


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
