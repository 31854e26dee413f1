"""Refinement of many images: CAM files in, masks out."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from ppl.cam.background import background_score
from ppl.parallel import FolderSummary, run_jobs
from ppl.parallel.run_jobs import finished_jobs
from ppl.refine.apply import apply_refiners
from ppl.refine.batched import refine_in_batches
from ppl.refine.jobs import RefineJob, read_probs
from ppl.refine.names import recorded_name
from ppl.refine.probabilities import DEFAULT_BACKGROUND, Background
from ppl.refine.results import Keep, check_places, remove_results, result_files, write_result
from ppl.refine.specs import RefinerList, RefinerSpec, check_files, parse_refiners

__all__ = ["finished_masks", "mask_settings", "refine_folder"]


def refine_folder(
    jobs: Iterable[RefineJob],
    out: str | Path,
    refiners: RefinerList,
    *,
    background: Background = DEFAULT_BACKGROUND,
    num_workers: int = -1,
    overwrite: bool = False,
    keep: Keep = None,
    device: str | torch.device = "cpu",
    batched: bool | None = None,
    progress: bool = True,
) -> FolderSummary:
    """Refine the CAMs of many images into masks, on all cores. A run that was stopped continues where it was.

    Inside `joblib.parallel_config(backend=...)` the work goes to processes, a Dask or a Ray cluster instead of threads.
    The processes of a launch share the images, see `ppl.parallel.Share`; for array jobs see `ppl.parallel.shard`.

    Args:
        jobs: the images, see `RefineJob` and `jobs_from_folders`. CAMs of another resolution are resized.
        out: folder of the results: `<image id>.png`, palette masks in which 0 is background and class c is c + 1, and
            `record.jsonl`, the settings and the record of finished work. A result is made again if the content of its
            image or its CAM file changed, or if the result is missing.
        refiners: as `parse_refiners` takes them; all are checked before any work. None: the best label of the CAMs.
        background: as for `cams_to_probs`.
        num_workers: number of workers; -1 for one per core.
        overwrite: make all results again; the old ones are removed first.
        keep: also write `<image id>.npz`. "probs": `probs` (1 + k, H, W) float16 and `classes` (k,), from which masks
            can be cut later; "confidence": `confidence` (H, W) uint8, the probability of each pixel's label times 255,
            which weights the loss of a segmentation network. Masks without them count as made with other settings.
        device: device of the CRF, such as "cuda". All other refiners compute on the CPU.
        batched: run the CRF in batches by the torch engine on `device`; None: if `device` is a CUDA device. Otherwise
            every worker refines an image of its own by the native engine.
        progress: show a bar with images per second and the time left, on a terminal only.

    Returns:
        How many images were done and skipped, which were bad and why, and the time; of all processes of a launch.

    Raises:
        PPLValueError: for refiners that do not parse or name a file that is not an affinity network, two jobs of one
            image id, no workers, a background or an affinity that has no lasting name (a `lambda`, a method), or if
            `out` holds results that were made with other settings, or images or CAM files that results would overwrite.
        PPLFileNotFoundError: if the affinity network that a refiner names is missing.
        FileWriteError: if results cannot be written.

    Example:
        >>> import tempfile
        >>> import numpy as np
        >>> from PIL import Image
        >>> with tempfile.TemporaryDirectory() as name:
        ...     folder = Path(name)
        ...     Image.new("RGB", (6, 4)).save(folder / "a.png")
        ...     cams = lambda: (np.ones((1, 2, 3), np.float32), np.array([4]))
        ...     summary = refine_folder([RefineJob("a", folder / "a.png", cams)], folder / "out", "guided_filter: 2")
        ...     summary.done, sorted(path.name for path in (folder / "out").iterdir())
        (1, ['a.png', 'record.jsonl'])
    """
    chosen = parse_refiners(refiners)
    check_files(chosen)
    jobs, out = list(jobs), Path(out)
    check_places(jobs, out, keep)
    background_score(torch.zeros(1, 1), background)  # an invalid background is an error before any work
    place = torch.device(device)
    common: dict[str, Any] = {"out": out, "refiners": chosen, "background": background, "keep": keep}
    many = partial(refine_in_batches, **common, device=place, num_workers=num_workers)
    return run_jobs(
        jobs,
        partial(_refine_one, **common),
        out,
        many=many if (place.type == "cuda" if batched is None else batched) else None,
        files=partial(result_files, out=out, keep=keep),
        settings=mask_settings(chosen, background, keep),
        remove=partial(remove_results, out=out),
        num_workers=num_workers,
        overwrite=overwrite,
        progress=progress,
    )


def finished_masks(
    jobs: Iterable[RefineJob],
    out: str | Path,
    refiners: RefinerList,
    *,
    background: Background = DEFAULT_BACKGROUND,
    keep: Keep = None,
    num_workers: int = -1,
) -> dict[str, Path]:
    """Return the masks that `refine_folder` would keep: those made from these images and CAMs with these settings.

    Args:
        jobs: the images.
        out: folder of the masks.
        refiners: as for `refine_folder`.
        background: as for `refine_folder`.
        keep: as for `refine_folder`.
        num_workers: number of workers that read the inputs; -1 for one per core.

    Returns:
        The mask file by image id.
    """
    jobs, out = list(jobs), Path(out)
    settings = mask_settings(parse_refiners(refiners), background, keep)
    files = partial(result_files, out=out, keep=keep)
    finished = finished_jobs(jobs, out, files=files, settings=settings, num_workers=num_workers)
    return {job.image_id: files(job)[0] for job in jobs if job.image_id in finished}


def mask_settings(refiners: tuple[RefinerSpec, ...], background: Background, keep: Keep = None) -> dict[str, Any]:
    """Return all that every mask depends on besides its image and CAM file."""
    return {
        "refiners": [spec.record() for spec in refiners],
        "background": recorded_name("background", background) if callable(background) else background,
        "probs": keep or False,
    }


def _refine_one(
    job: RefineJob, *, out: Path, refiners: tuple[RefinerSpec, ...], background: Background, keep: Keep
) -> None:
    image, probs, labels = read_probs(job, background)
    write_result(job, out, apply_refiners(refiners, image, probs, labels), labels, keep)
