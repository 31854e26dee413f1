"""Labels to learn affinities from: where CAMs are sure of a class, sure of the background, or neither."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ppl.errors import PPLValueError
from ppl.io import read_image, write_mask
from ppl.parallel import FolderSummary, run_jobs
from ppl.refine.jobs import RefineJob, resize_maps
from ppl.refine.pipeline import Recipe, apply_steps, parse_steps
from ppl.refine.probabilities import cams_to_probs
from ppl.refine.results import check_places, date_result, is_current, newest_source

__all__ = ["UNSURE", "confident_label_folder", "confident_labels"]

UNSURE = 255


def confident_labels(
    image: npt.NDArray[np.uint8],
    maps: npt.NDArray[np.floating[Any]],
    classes: Sequence[int] | npt.NDArray[np.integer[Any]] | None = None,
    *,
    foreground: float = 0.30,
    background: float = 0.05,
    steps: Recipe = "crf: irn",
) -> npt.NDArray[np.uint8]:
    """Refine the CAMs twice, with a high and a low background score, and keep what both agree on.

    What is foreground under the high score is foreground; what is background under the low one is background; between
    them nothing is said.

    Source: IRN (Ahn et al., CVPR 2019); 0.30 and 0.05 are its values, ReCAM takes 0.35 and 0.10, AMN 0.45 and 0.15.

    Args:
        image: `(H, W, 3)` uint8.
        maps: `(k, H, W)` CAMs in [0, 1].
        classes: the class of each map, from 0; by default 0 to k - 1.
        foreground: background score against which foreground must win.
        background: background score that must win for background.
        steps: refinement of both, as for `parse_steps`.

    Returns:
        `(H, W)` uint8: 0 background, class c as c + 1, 255 unsure.

    Raises:
        PPLValueError: if the scores are not `0 <= background <= foreground <= 1`, or a class has no room in a mask.

    Example:
        >>> maps = np.array([[[0.0, 0.2, 0.9]]], np.float32)
        >>> confident_labels(np.zeros((1, 3, 3), np.uint8), maps, [6], steps=None)
        array([[  0, 255,   7]], dtype=uint8)
    """
    _check_scores(foreground, background)
    numbers = np.arange(len(maps)) if classes is None else np.asarray(classes, np.int64)
    if numbers.shape != (len(maps),) or (numbers.size and not 0 <= numbers.min() <= numbers.max() < UNSURE - 1):
        raise PPLValueError(f"classes must be {len(maps)} numbers from 0 to {UNSURE - 2}, got {numbers.tolist()}")
    chosen = parse_steps(steps)
    sure, generous = (
        apply_steps(chosen, image, cams_to_probs(maps, score)).argmax(axis=0) for score in (foreground, background)
    )
    labels: npt.NDArray[np.uint8] = np.concatenate([[UNSURE], numbers + 1]).astype(np.uint8)[sure]
    labels[(sure == 0) & (generous == 0)] = 0
    return labels


def confident_label_folder(
    jobs: Iterable[RefineJob],
    out: str | Path,
    *,
    foreground: float = 0.30,
    background: float = 0.05,
    steps: Recipe = "crf: irn",
    num_workers: int = -1,
    overwrite: bool = False,
    progress: bool = True,
) -> FolderSummary:
    """Write the confident labels of many images as `<image_id>.png`, resumed and parallel like `refine_folder`.

    Args:
        jobs: the images and their CAMs.
        out: folder of the label maps.
        foreground: as for `confident_labels`, like the next two.
        background: background score that must win for background.
        steps: refinement of both.
        num_workers: workers; -1 for one per core.
        overwrite: make all of them again.
        progress: a bar on a terminal.

    Returns:
        What was done, what was bad.

    Raises:
        PPLValueError: for steps or scores that cannot be, or if `out` holds labels of other CAM files, scores or steps,
            or the pictures themselves.
    """
    chosen = parse_steps(steps)
    _check_scores(foreground, background)
    jobs, out = list(jobs), Path(out)
    check_places(jobs, out)
    record = {
        "foreground": foreground,
        "background": background,
        "steps": [step.record() for step in chosen],
        "cams": _fingerprint(jobs),
    }
    return run_jobs(
        jobs,
        partial(_label_one, foreground=foreground, background=background, steps=chosen),
        out,
        record={"confident_labels": record},
        num_workers=num_workers,
        overwrite=overwrite,
        progress=progress,
        description="confident labels",
        is_done=is_current,
    )


def _fingerprint(jobs: Sequence[RefineJob]) -> str:
    """Of the CAM files: names, sizes and times. What functions return cannot be told before they are called."""
    digest = hashlib.sha256()
    for job in jobs:
        path = job.cams if isinstance(job.cams, Path) else None
        stat = path.stat() if path is not None and path.is_file() else None
        digest.update(repr((job.image_id, stat and (stat.st_size, stat.st_mtime_ns))).encode())
    return digest.hexdigest()


def _check_scores(foreground: float, background: float) -> None:
    if not 0 <= background <= foreground <= 1:
        raise PPLValueError(
            f"the scores must be 0 <= background <= foreground <= 1, got background={background},"
            f" foreground={foreground}"
        )


def _label_one(job: RefineJob, path: Path, *, foreground: float, background: float, steps: Recipe) -> None:
    newest = newest_source(job)
    image = np.asarray(read_image(job.image))
    maps, classes = job.load()
    resized = resize_maps(maps, (image.shape[0], image.shape[1]))
    labels = confident_labels(image, resized, classes, foreground=foreground, background=background, steps=steps)
    write_mask(path, labels)
    date_result(path, newest)
