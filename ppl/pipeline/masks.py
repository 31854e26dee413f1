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
from ppl.parallel import BadFile, current_share, gather_bad, guarded, parallel_map, tracked
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
        images: the images of the split. The processes of a launch share them.
        progress: show a bar.

    Returns:
        The images whose CAM file is missing or cannot be read.
    """
    count, images = len(images), images.part(current_share())
    results = _results(recipe, folder, split)
    keys = mask_keys(folder.cams(split), images, recipe.num_workers)
    if results.is_complete(keys):
        return []
    with folder.step(f"masks/{split}", fingerprint(results.settings), images=count):
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
    """Write the masks that are not finished, and close their record. All processes of a launch make this call.

    Args:
        images: the images of this process.
        cams: folder of their CAM files.
        results: folder of the masks.
        keys: fingerprint of the CAM file by image id, see `mask_keys`.
        num_workers: number of workers; -1 for one per core.
        keep_others: keep the masks of other images that are in the folder.
        progress: show a bar.

    Returns:
        The images whose CAM file is missing or cannot be read.
    """
    missing = set(results.begin(keys, keep_others=keep_others))
    todo = [sample for sample in images if sample.image_id in missing]
    work = partial(guarded, partial(_cut, cams, results.path, parse_background(results.settings["background"])))
    bad = []
    for cut in tracked(parallel_map(work, todo, num_workers), "masks", len(todo), show=progress):
        if isinstance(cut, BadFile):
            bad.append(cut)
        else:
            results.finish(cut, keys[cut])
    results.end()
    return gather_bad(bad)


def _cut(cams: Path, masks: Path, background: Background, sample: Sample) -> str:
    cam = CamResult.load(cams / f"{sample.image_id}.npz")
    write_mask(masks / f"{sample.image_id}.png", cam.to_mask(background=background).numpy())
    return sample.image_id


def _results(recipe: Recipe, folder: RunFolder, split: str) -> ResultFolder:
    return ResultFolder(folder.masks(split), ".png", mask_settings(recipe.cam))
