"""The result files of refinement jobs: where they may lie, and whether they are still those of their sources."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ppl.errors import PPLValueError
from ppl.refine.jobs import RefineJob

__all__ = ["PROBS", "check_places", "date_result", "is_current", "newest_source", "probs_path", "remove_results"]

PROBS = frozenset({"probs", "classes"})
"""The arrays of a file of probabilities; a CAM file has others, so that the two are never taken for one another."""


def probs_path(mask: Path) -> Path:
    """Where the probabilities of a mask lie.

    Example:
        >>> probs_path(Path("out/cat.v1.png")).as_posix()
        'out/cat.v1.npz'
    """
    return mask.with_name(mask.name.removesuffix(".png") + ".npz")


def check_places(jobs: Sequence[RefineJob], out: Path, probs: bool = False) -> None:
    """Refuse a folder in which a result would take the place of a picture or a CAM file, of whichever job.

    Args:
        jobs: the images.
        out: folder of the results.
        probs: whether probabilities are written beside the masks.

    Raises:
        PPLValueError: with the file that would be lost.

    Example:
        >>> check_places([RefineJob("cat", Path("images/cat.png"), Path("cams/cat.npz"))], Path("images"))
        Traceback (most recent call last):
        ppl.errors.PPLValueError: images/cat.png: a result would take its place: choose another folder than images
    """
    masks = [out / f"{job.image_id}.png" for job in jobs]
    taken = {path.resolve() for path in masks} | {probs_path(path).resolve() for path in masks if probs}
    for job in jobs:
        own = next((path for path in _sources(job) if path.resolve() in taken), None)
        if own is not None:
            raise PPLValueError(f"{own}: a result would take its place: choose another folder than {out}")


def is_current(job: RefineJob, path: Path, probs: bool = False) -> bool:
    """Whether a result is there, with its probabilities if they are wanted, and of this very picture and these maps."""
    if probs and not probs_path(path).exists():
        return False
    return path.exists() and path.stat().st_mtime_ns >= newest_source(job)


def newest_source(job: RefineJob) -> int:
    """When the picture or the maps of a job were last written, in nanoseconds."""
    return max((path.stat().st_mtime_ns for path in _sources(job) if path.exists()), default=0)


def date_result(path: Path, newest: int) -> None:
    """Let a result be no older than its sources: those from the future would be taken for newer ones for ever."""
    if path.stat().st_mtime_ns < newest:
        os.utime(path, ns=(newest, newest))


def remove_results(_job: RefineJob, path: Path) -> None:
    """Remove a mask and the probabilities beside it; a file of other arrays, such as CAMs, is not ours and stays."""
    path.unlink(missing_ok=True)
    probs = probs_path(path)
    if _holds_probs(probs):
        probs.unlink()


def _holds_probs(path: Path) -> bool:
    try:
        with np.load(path, allow_pickle=False) as file:
            return set(file.files) == PROBS
    except Exception:  # none there, or not ours: we write whole files
        return False


def _sources(job: RefineJob) -> list[Path]:
    return [path for path in (job.image, job.cams) if isinstance(path, Path)]
