"""The result files of refinement: the mask of an image, and its probabilities or their maximum if these are kept."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from ppl.errors import PPLValueError
from ppl.io import atomic_write, write_mask
from ppl.io.confidence import write_confidence
from ppl.refine.jobs import RefineJob

__all__ = ["Keep", "check_places", "remove_results", "result_files", "write_result"]

Keep: TypeAlias = Literal["probs", "confidence"] | None
"""What stays of the probabilities beside a mask: all of them, the one of the best label of each pixel, or nothing."""

_ARRAYS = ({"probs", "classes"}, {"confidence"})  # of the files beside masks; a CAM file holds other arrays


def result_files(job: RefineJob, out: Path, keep: Keep = None) -> list[Path]:
    """Return the files of a result: the mask, and the file of its probabilities if they are kept.

    Example:
        >>> job = RefineJob("cat.v1", Path("images/cat.v1.png"), Path("cams/cat.v1.npz"))
        >>> [path.as_posix() for path in result_files(job, Path("out"), keep="probs")]
        ['out/cat.v1.png', 'out/cat.v1.npz']
    """
    return [out / f"{job.image_id}{suffix}" for suffix in ((".png", ".npz") if keep else (".png",))]


def check_places(jobs: Sequence[RefineJob], out: Path, keep: Keep = None) -> None:
    """Refuse a folder in which a result would overwrite an image or a CAM file of any job.

    Raises:
        PPLValueError: with the file that would be lost.

    Example:
        >>> check_places([RefineJob("cat", Path("images/cat.png"), Path("cams/cat.npz"))], Path("images"))
        Traceback (most recent call last):
        ppl.errors.PPLValueError: images/cat.png would be overwritten by a result: choose another folder than images
    """
    results = {path.resolve() for job in jobs for path in result_files(job, out, keep)}
    for job in jobs:
        lost = next((path for path in job.files if Path(path).resolve() in results), None)
        if lost is not None:
            raise PPLValueError(f"{lost} would be overwritten by a result: choose another folder than {out}")


def write_result(job: RefineJob, out: Path, probs: npt.NDArray[Any], labels: npt.NDArray[np.int64], keep: Keep) -> None:
    """Write the mask of an image, after its probabilities or their confidence if these are kept."""
    mask, *others = result_files(job, out, keep)
    if keep == "confidence":
        write_confidence(mask, probs)
    elif keep == "probs":
        with atomic_write(others[0]) as handle:
            np.savez_compressed(handle, probs=probs.astype(np.float16), classes=labels[1:] - 1)
    write_mask(mask, labels[probs.argmax(axis=0)].astype(np.uint8))


def remove_results(job: RefineJob, *, out: Path) -> None:
    """Remove a mask and the probabilities beside it. A file of other arrays, such as CAMs, stays."""
    mask, probs = result_files(job, out, "probs")
    mask.unlink(missing_ok=True)
    if _is_result(probs):
        probs.unlink()


def _is_result(path: Path) -> bool:
    try:
        with np.load(path, allow_pickle=False) as file:
            return set(file.files) in _ARRAYS
    except Exception:  # a missing file, or a file of something else, for which numpy and zip have many errors
        return False
