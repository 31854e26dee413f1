"""Step three: maps and image into sharper masks, by the recipe's list of refiners."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ppl.cam.background import otsu_background
from ppl.data import TaggedImages
from ppl.pipeline.affinity import walking_on
from ppl.pipeline.background import parse_background
from ppl.pipeline.folder import RunFolder, sha256
from ppl.pipeline.recipe import DEFAULT_REFINE, Recipe
from ppl.refine import FolderSummary, RefineJob, Step, jobs_from_folders, parse_steps, refine_folder, score_steps

__all__ = ["refine_cams", "refine_masks"]


def refine_masks(
    recipe: Recipe,
    folder: RunFolder,
    split: str,
    images: TaggedImages,
    *,
    affinity: Path | None = None,
    progress: bool = True,
) -> int:
    """Write `refined/<split>/<stem>.png` for every image that has none yet.

    Args:
        recipe: its `refine` list, and the background rule.
        folder: a run whose CAMs are made.
        split: name of the split.
        images: its images.
        affinity: learned affinities, for random walks that name none.
        progress: show a bar with images per second and the time left.

    Returns:
        How many were made in this call. Images that could not be refined are listed in the manifest.
    """
    steps = parse_steps(recipe.refine)
    if affinity is not None:
        steps = walking_on(affinity, steps)
    record = [step.record() for step in steps]
    step, out = f"refined/{split}", folder.refined(split)
    inputs = {"cams": folder.stamp(f"cams/{split}"), "background": recipe.cam.background, "steps": record}
    if affinity is not None:
        inputs["affinity"] = sha256(affinity)
    folder.begin(step, inputs, out)
    jobs = [RefineJob(sample.stem, sample.image, folder.cams(split) / f"{sample.stem}.npz") for sample in images]
    with folder.finishing(step, images=len(jobs)):
        summary = refine_folder(
            jobs,
            out,
            steps,
            background=_rule(recipe.cam.background),
            n_jobs=recipe.jobs,
            progress=progress,
        )
    folder.record(refinement=record, not_refined={bad.stem: bad.reason for bad in summary.bad})
    if len(steps) > 1 and summary.done:
        _score_chain(recipe, folder, split, images, jobs, steps)
    return summary.done


def _score_chain(
    recipe: Recipe,
    folder: RunFolder,
    split: str,
    images: TaggedImages,
    jobs: Sequence[RefineJob],
    steps: Sequence[Step],
) -> None:
    """Record what every step of a chain gains, where there are masks; of a single step, the scores of a run tell."""
    masks = {sample.stem: sample.read_mask for sample in images if sample.mask is not None}
    if not masks:
        return
    found, _ = score_steps(
        jobs,
        masks,
        steps,
        num_classes=len(images.classes),
        background=_rule(recipe.cam.background),
        n_jobs=recipe.jobs,
        progress=False,
    )
    folder.record(refinement_scores={split: [asdict(score) for score in found]})


def refine_cams(
    cams: Path,
    images: Path,
    out: Path,
    steps: str | None,
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
        steps: as `ppl.refine.parse_steps` takes them; None is what a recipe does by default.
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
        steps or DEFAULT_REFINE,
        background=_rule(background),
        n_jobs=jobs,
        overwrite=overwrite,
        progress=progress,
    )


def _rule(background: str | float) -> Any:
    parsed = parse_background(background)
    return otsu_background if parsed == "auto" else parsed
