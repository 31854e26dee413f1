"""The refinement step: CAMs and pictures into sharper masks, by the recipe's list of refiners."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from ppl.cam import parse_background
from ppl.data import TaggedImages
from ppl.io.archives import ARCHIVE_SUFFIX
from ppl.io.fingerprint import fingerprint
from ppl.io.images import ImageFile
from ppl.parallel import FolderSummary, current_share
from ppl.parallel.lock import command_lock
from ppl.pipeline.cams import training_split
from ppl.pipeline.device import torch_device
from ppl.pipeline.learned import learned_files, with_networks
from ppl.pipeline.recipe import DEFAULT_REFINERS, CamRecipe, Recipe
from ppl.pipeline.results import ResultFolder
from ppl.pipeline.run_folder import RunFolder
from ppl.refine import RefineJob, RefinerSpec, jobs_from_folders, parse_refiners, refine_folder, score_refiners
from ppl.refine.folder import finished_masks, mask_settings
from ppl.refine.results import Keep
from ppl.refine.specs import RefinerList

__all__ = ["finished_refined", "refine_cams", "refine_masks"]


def refine_masks(
    recipe: Recipe, folder: RunFolder, split: str, images: TaggedImages, *, progress: bool = True
) -> FolderSummary:
    """Write `refined/<split>/<image id>.png` for every image that has no mask of its picture, CAM file and refiners.

    Args:
        recipe: the recipe of the run.
        folder: a run whose CAM files are made, and whose networks for refiners are learned.
        split: name of the split in the run folder.
        images: the images of the split. The processes of a launch share them.
        progress: show a bar with images per second and the time left.

    Returns:
        The number of masks that this call made and that were there, and the images that could not be refined. The
        manifest lists these images too.
    """
    refiners, jobs = _refiners(recipe, folder), _jobs(folder, split, images)
    share, background = current_share(), parse_background(recipe.cam.background)
    keep = _kept(recipe, split)
    results = ResultFolder(folder.refined(split), ".png", mask_settings(refiners, background, keep))
    own = images.part(share)
    finished = finished_refined(recipe, folder, split, own)
    others = set(filter(share.owns, results.files())) - finished.keys()
    parts = not share.is_shard and any(share.gather(results.record.has_parts))
    complete = not parts and all(share.gather(not others and len(finished) == len(own)))
    device = torch_device(recipe.device)
    records = [refiner.record(device.type) for refiner in refiners]
    summary = FolderSummary(0, len(jobs), (), 0.0)
    if not complete:
        with folder.step(f"refined/{split}", fingerprint([records, recipe.cam.background]), images=len(jobs)):
            results.remove(others)
            results.record.begin(results.settings)
            summary = refine_folder(
                jobs,
                results.path,
                refiners,
                background=background,
                keep=keep,
                num_workers=recipe.num_workers,
                device=device,
                progress=progress,
            )
    folder.record(refinement=records, not_refined={split: {bad.image_id: bad.reason for bad in summary.bad}})
    if len(refiners) == 1:
        folder.record(refinement_scores={split: []})
    elif (summary.done or parts) and not share.is_shard:
        _score_list(recipe, folder, split, images, jobs, refiners)
    return summary


def finished_refined(recipe: Recipe, folder: RunFolder, split: str, images: TaggedImages) -> dict[str, Path]:
    """Return, by image id, the refined masks that were made by this recipe from the present pictures and CAM files."""
    if not recipe.refine or not folder.refined(split).is_dir():
        return {}
    if not all(path.is_file() for _, path in learned_files(recipe, folder).values()):
        return {}
    return finished_masks(
        _jobs(folder, split, images),
        folder.refined(split),
        _refiners(recipe, folder),
        background=parse_background(recipe.cam.background),
        keep=_kept(recipe, split),
        num_workers=recipe.num_workers,
    )


def _kept(recipe: Recipe, split: str) -> Keep:
    """Return what the training of the segmentation network needs beside the masks of a split."""
    wanted = recipe.segment is not None and recipe.segment.reads_confidence and split == training_split(recipe)
    return "confidence" if wanted else None


def _refiners(recipe: Recipe, folder: RunFolder) -> tuple[RefinerSpec, ...]:
    return with_networks(parse_refiners(recipe.refine), learned_files(recipe, folder))


def _jobs(folder: RunFolder, split: str, images: TaggedImages) -> list[RefineJob]:
    cams = folder.cams(split)
    return [RefineJob(sample.image_id, sample.picture, cams / f"{sample.image_id}.npz") for sample in images]


def _score_list(
    recipe: Recipe,
    folder: RunFolder,
    split: str,
    images: TaggedImages,
    jobs: Sequence[RefineJob],
    refiners: Sequence[RefinerSpec],
) -> None:
    """Record the mIoU after each of several refiners, over the images that have a mask."""
    masks = {sample.image_id: sample.read_mask for sample in images if sample.mask is not None}
    if not masks:
        return
    found, _ = score_refiners(
        jobs,
        masks,
        refiners,
        num_classes=len(images.classes),
        background=parse_background(recipe.cam.background),
        num_workers=recipe.num_workers,
        progress=False,
    )
    folder.record(refinement_scores={split: [asdict(score) for score in found]})


def refine_cams(
    cams: Path,
    images: Path,
    out: Path,
    refiners: RefinerList = DEFAULT_REFINERS,
    background: str | float = CamRecipe().background,
    *,
    value_range: int | None = None,
    device: str = "auto",
    num_workers: int = -1,
    overwrite: bool = False,
    progress: bool = True,
) -> FolderSummary:
    """Refine a folder of CAM files into masks; the files need not come from a run.

    Args:
        cams: folder of `.npz` files as `CamResult.save` writes them.
        images: folder of the pictures of the same names, or one picture or tar archive.
        out: folder of the masks.
        refiners: a list of refiners, as `ppl.refine.parse_refiners` reads it; None for none.
        background: a number, "auto" or "power:ALPHA".
        value_range: largest value of 16-bit pictures, 4095 for 12 bits; None for 65535.
        device: device of the CRF, as `device` of a recipe.
        num_workers: workers; -1 for one per core.
        overwrite: make masks again that are there.
        progress: show a bar.

    Returns:
        The number of masks that were made and that were there, and the images that were left out.

    Raises:
        PPLFileNotFoundError: if a folder is missing or `cams` holds no CAM files.
        PPLValueError: if a refiner or the background is unknown, or `out` holds masks that were made in another way.
        FolderInUseError: if another process is at work in `out`.
    """
    chosen = parse_refiners(refiners)
    if images.is_file() and images.suffix != ARCHIVE_SUFFIX:
        jobs = [RefineJob(images.stem, images, cams / f"{images.stem}.npz")]
    else:
        jobs = jobs_from_folders(images, cams)
    if value_range is not None:
        jobs = [replace(job, image=ImageFile(job.files[0], value_range)) for job in jobs]
    with command_lock(out, fingerprint(mask_settings(chosen, parse_background(background)))):
        return refine_folder(
            jobs,
            out,
            chosen,
            background=parse_background(background),
            num_workers=num_workers,
            device=torch_device(device),
            overwrite=overwrite,
            progress=progress,
        )
