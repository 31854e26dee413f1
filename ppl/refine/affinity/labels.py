"""Labels to learn affinities from: confident foreground, confident background, or unsure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ppl.errors import PPLValueError
from ppl.io import read_image, write_mask
from ppl.parallel import FolderSummary, run_jobs
from ppl.refine.affinity.config import ConfidentLabelConfig
from ppl.refine.apply import apply_refiners
from ppl.refine.jobs import RefineJob, resize_maps
from ppl.refine.probabilities import cams_to_probs
from ppl.refine.results import check_places, result_files
from ppl.refine.specs import RefinerList, parse_refiners

__all__ = ["UNSURE", "confident_label_folder", "confident_labels"]

UNSURE = 255
"""The label of cells that are neither confident foreground nor confident background."""

_DEFAULTS = ConfidentLabelConfig()


def confident_labels(
    image: npt.NDArray[np.uint8],
    maps: npt.NDArray[np.floating[Any]],
    classes: Sequence[int] | npt.NDArray[np.integer[Any]] | None = None,
    *,
    foreground: float = _DEFAULTS.foreground,
    background: float = _DEFAULTS.background,
    refiners: RefinerList = _DEFAULTS.refiners,
) -> npt.NDArray[np.uint8]:
    """Label the pixels whose class is certain, after two refinements with a high and a low background score.

    Foreground under the high score is foreground, background under the low score is background, and all other pixels
    are unsure.

    Source: IRN (Ahn et al., CVPR 2019), section 3.3 and the released code.

    Args:
        image: `(H, W, 3)` uint8.
        maps: `(k, H, W)` CAMs in [0, 1].
        classes: the class of each map, from 0; by default 0 to k - 1.
        foreground: background score that a confident foreground beats.
        background: background score that beats every class where the background is confident.
        refiners: refiners of both maps of probabilities, as for `parse_refiners`.

    Returns:
        `(H, W)` uint8: 0 background, class c as c + 1, 255 unsure.

    Raises:
        PPLValueError: if the scores are not `0 <= background <= foreground <= 1`, or a class is not in 0..253.

    Example:
        >>> maps = np.array([[[0.0, 0.2, 0.9]]], np.float32)
        >>> confident_labels(np.zeros((1, 3, 3), np.uint8), maps, [6], refiners=None)
        array([[  0, 255,   7]], dtype=uint8)
    """
    ConfidentLabelConfig.checked(foreground=foreground, background=background)
    numbers = np.arange(len(maps)) if classes is None else np.asarray(classes, np.int64)
    if numbers.shape != (len(maps),) or (numbers.size and not 0 <= numbers.min() <= numbers.max() < UNSURE - 1):
        raise PPLValueError(f"classes must be {len(maps)} numbers from 0 to {UNSURE - 2}, got {numbers.tolist()}")
    chosen = parse_refiners(refiners)
    sure, generous = (
        apply_refiners(chosen, image, cams_to_probs(maps, score), np.append(0, numbers + 1)).argmax(axis=0)
        for score in (foreground, background)
    )
    labels: npt.NDArray[np.uint8] = np.concatenate([[UNSURE], numbers + 1]).astype(np.uint8)[sure]
    labels[(sure == 0) & (generous == 0)] = 0
    return labels


def confident_label_folder(
    jobs: Iterable[RefineJob],
    out: str | Path,
    *,
    foreground: float = _DEFAULTS.foreground,
    background: float = _DEFAULTS.background,
    refiners: RefinerList = _DEFAULTS.refiners,
    num_workers: int = -1,
    overwrite: bool = False,
    progress: bool = True,
) -> FolderSummary:
    """Write the confident labels of many images as `<image_id>.png`; resumes and runs in parallel as `refine_folder`.

    Args:
        jobs: the images and their CAMs.
        out: folder of the label maps.
        foreground: as for `confident_labels`.
        background: as for `confident_labels`.
        refiners: as for `confident_labels`.
        num_workers: number of workers; -1 for one per core.
        overwrite: also make the label maps that exist.
        progress: show a progress bar if standard error is a terminal.

    Returns:
        The number of label maps written, and the images that could not be labelled.

    Raises:
        PPLValueError: for invalid refiners or scores, or if `out` holds labels that were made with other settings, or
            images or CAM files that labels would overwrite.
    """
    chosen = parse_refiners(refiners)
    ConfidentLabelConfig.checked(foreground=foreground, background=background)
    jobs, out = list(jobs), Path(out)
    check_places(jobs, out)
    settings = {
        "foreground": foreground,
        "background": background,
        "refiners": [spec.record() for spec in chosen],
    }
    return run_jobs(
        jobs,
        partial(_label_one, out=out, foreground=foreground, background=background, refiners=chosen),
        out,
        files=partial(result_files, out=out),
        settings={"confident_labels": settings},
        num_workers=num_workers,
        overwrite=overwrite,
        progress=progress,
        description="confident labels",
    )


def _label_one(job: RefineJob, *, out: Path, foreground: float, background: float, refiners: RefinerList) -> None:
    image = np.asarray(read_image(job.image))
    maps, classes = job.load()
    resized = resize_maps(maps, (image.shape[0], image.shape[1]))
    labels = confident_labels(image, resized, classes, foreground=foreground, background=background, refiners=refiners)
    write_mask(result_files(job, out)[0], labels)
