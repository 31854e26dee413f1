"""The masks that the background rule cuts from CAM files."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from ppl.cam import CamResult, parse_background
from ppl.cam.background import Background
from ppl.data import Sample, TaggedImages
from ppl.io import write_mask
from ppl.io.fingerprint import fingerprint
from ppl.parallel import BadFile, guarded, parallel_map, tracked
from ppl.pipeline.recipe import CamRecipe, Recipe
from ppl.pipeline.results import ResultFolder, hash_files
from ppl.pipeline.run_folder import RunFolder

__all__ = ["cut_masks", "make_masks", "mask_keys", "mask_settings", "outdated_masks"]


def make_masks(
    recipe: Recipe, folder: RunFolder, split: str, images: TaggedImages, *, progress: bool = True
) -> list[BadFile]:
    """Write `masks/<split>/<image id>.png` from every CAM file: the best class of each pixel, or background.

    Args:
        recipe: the recipe of the run.
        folder: a run whose CAM files are made.
        split: name of the split in the run folder.
        images: the images of the split.
        progress: show a bar.

    Returns:
        The images whose CAM file is missing or cannot be read.
    """
    results = _results(recipe, folder, split)
    keys = mask_keys(folder.cams(split), images, recipe.num_workers)
    if not results.unfinished(keys) and len(results.record) == len(images):
        return []
    with folder.step(f"masks/{split}", fingerprint(results.settings), images=len(images)):
        return cut_masks(images, folder.cams(split), results, keys, recipe.num_workers, progress=progress)


def outdated_masks(recipe: Recipe, folder: RunFolder, split: str, images: TaggedImages) -> list[str]:
    """Return the ids of the images whose mask is missing or was cut from another CAM file or by another rule."""
    keys = mask_keys(folder.cams(split), images, recipe.num_workers)
    return _results(recipe, folder, split).unfinished(keys)


def mask_settings(settings: CamRecipe) -> dict[str, Any]:
    """Return all that every mask depends on besides its CAM file."""
    return {"background": settings.background}


def mask_keys(cams: Path, images: TaggedImages, num_workers: int) -> dict[str, str]:
    """Return, by image id, the fingerprint of the CAM file that an image's mask is cut from."""
    hashes = hash_files({sample.image_id: cams / f"{sample.image_id}.npz" for sample in images}, num_workers)
    return {image_id: fingerprint(content) for image_id, content in hashes.items()}


def cut_masks(
    images: TaggedImages,
    cams: Path,
    results: ResultFolder,
    keys: dict[str, str],
    num_workers: int,
    *,
    keep_others: bool = False,
    progress: bool,
) -> list[BadFile]:
    """Write the masks that are not finished.

    Args:
        images: the images.
        cams: folder of their CAM files.
        results: folder of the masks.
        keys: fingerprint of the CAM file by image id, see `mask_keys`.
        num_workers: threads; -1 for one per core.
        keep_others: keep the masks of other images that are in the folder.
        progress: show a bar.

    Returns:
        The images whose CAM file is missing or cannot be read.
    """
    missing = set(results.begin(keys, keep_others=keep_others))
    todo = [sample for sample in images if sample.image_id in missing]
    work = partial(guarded, partial(_cut, cams, results, keys, parse_background(results.settings["background"])))
    found = tracked(parallel_map(work, todo, num_workers), "masks", len(todo), show=progress)
    return [failure for failure in found if failure is not None]


def _cut(cams: Path, results: ResultFolder, keys: dict[str, str], background: Background, sample: Sample) -> None:
    cam = CamResult.load(cams / f"{sample.image_id}.npz")
    write_mask(results.file(sample.image_id), cam.to_mask(background=background).numpy())
    results.finish(sample.image_id, keys[sample.image_id])


def _results(recipe: Recipe, folder: RunFolder, split: str) -> ResultFolder:
    return ResultFolder(folder.masks(split), ".png", mask_settings(recipe.cam))
