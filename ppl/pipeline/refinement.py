"""Step three: maps and image into sharper masks, by the recipe's list of refiners."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from ppl.cam import parse_background
from ppl.data import TaggedImages
from ppl.io.fingerprint import sha256
from ppl.parallel import FolderSummary
from ppl.pipeline.affinity import walking_on
from ppl.pipeline.cams import mask_inputs
from ppl.pipeline.device import torch_device
from ppl.pipeline.folder import RunFolder
from ppl.pipeline.recipe import DEFAULT_REFINE, Recipe
from ppl.refine import RefineJob, RefinerSpec, jobs_from_folders, parse_refiners, refine_folder, score_refiners

__all__ = ["has_refined", "refine_cams", "refine_masks"]


def refine_masks(
    recipe: Recipe, folder: RunFolder, split: str, images: TaggedImages, *, progress: bool = True
) -> FolderSummary:
    """Write `refined/<split>/<image_id>.png` for every image that has none yet.

    Args:
        recipe: its `refine` list, and the background rule.
        folder: a run whose CAMs are made, and whose affinities are learned, if the recipe wants them.
        split: name of the split.
        images: its images.
        progress: show a bar with images per second and the time left.

    Returns:
        What was done in this call. Images that could not be refined are listed in the manifest, too.
    """
    refiners, device = parse_refiners(recipe.refine), torch_device(recipe.device)
    if recipe.affinity is not None:
        refiners = walking_on(folder.affinity, refiners)
    step, out = f"refined/{split}", folder.refined(split)
    inputs = _inputs(recipe, folder, split)
    # then what is there is of these maps, whenever a copy of the folder says that it was written
    current = folder.is_current(step, inputs)
    folder.begin(step, inputs, out)
    jobs = [
        RefineJob(sample.image_id, sample.picture, folder.cams(split) / f"{sample.image_id}.npz") for sample in images
    ]
    todo = [job for job in jobs if not (current and (out / f"{job.image_id}.png").exists())]
    with folder.finishing(step, images=len(jobs)):
        summary = refine_folder(
            todo,
            out,
            refiners,
            background=parse_background(recipe.cam.background),
            num_workers=recipe.jobs,
            device=device,
            progress=progress,
        )
    summary = replace(summary, skipped=summary.skipped + len(jobs) - len(todo))
    record = [spec.record(str(device)) for spec in refiners]
    folder.record(refinement=record, not_refined={split: {bad.image_id: bad.reason for bad in summary.bad}})
    if len(refiners) == 1:
        folder.record(refinement_scores={split: []})
    elif summary.done:
        _score_chain(recipe, folder, split, images, jobs, refiners)
    return summary


def has_refined(recipe: Recipe, folder: RunFolder, split: str) -> bool:
    """Return whether a split has refined masks that this recipe's background rule and refiners made of its maps."""
    if not recipe.refine or (recipe.affinity is not None and not folder.affinity.is_file()):
        return False
    return folder.refined(split).is_dir() and folder.is_current(f"refined/{split}", _inputs(recipe, folder, split))


def _inputs(recipe: Recipe, folder: RunFolder, split: str) -> dict[str, Any]:
    """All that refined masks depend on; no path of the run folder, which may be moved."""
    inputs = mask_inputs(recipe, folder, split) | {"refine": [spec.record() for spec in parse_refiners(recipe.refine)]}
    return inputs if recipe.affinity is None else inputs | {"affinity": sha256(folder.affinity)}


def _score_chain(
    recipe: Recipe,
    folder: RunFolder,
    split: str,
    images: TaggedImages,
    jobs: Sequence[RefineJob],
    refiners: Sequence[RefinerSpec],
) -> None:
    """Record the gain of every refiner of a list, if there are masks. The scores of a run show that of a single one."""
    masks = {sample.image_id: sample.read_mask for sample in images if sample.mask is not None}
    if not masks:
        return
    found, _ = score_refiners(
        jobs,
        masks,
        refiners,
        num_classes=len(images.classes),
        background=parse_background(recipe.cam.background),
        num_workers=recipe.jobs,
        progress=False,
    )
    folder.record(refinement_scores={split: [asdict(score) for score in found]})


def refine_cams(
    cams: Path,
    images: Path,
    out: Path,
    refiners: str | None,
    background: str | float,
    jobs: int = -1,
    *,
    overwrite: bool = False,
    progress: bool = True,
) -> FolderSummary:
    """Refine a folder of CAM files that need not come from a run.

    Args:
        cams: folder of `.npz` files as `CamResult.save` writes them.
        images: folder of the pictures of the same names.
        out: folder of the masks.
        refiners: as `ppl.refine.parse_refiners` takes them; None: the default of a recipe.
        background: a number, "auto" or "power:ALPHA".
        jobs: workers; -1 for one a core.
        overwrite: make masks that are there again.
        progress: show a bar.

    Returns:
        How many were done, skipped and left out.
    """
    return refine_folder(
        jobs_from_folders(images, cams),
        out,
        refiners or DEFAULT_REFINE,
        background=parse_background(background),
        num_workers=jobs,
        device=torch_device("auto"),
        overwrite=overwrite,
        progress=progress,
    )
