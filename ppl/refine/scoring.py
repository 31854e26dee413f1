"""The gain of every refiner in a list, measured on images that have ground-truth masks."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch

from ppl.errors import PPLValueError
from ppl.io import read_mask
from ppl.metrics import ConfusionMatrix
from ppl.parallel import BadFile, current_share, gather_bad, guarded, parallel_map, progress_bar
from ppl.refine.apply import iterate_refiners
from ppl.refine.jobs import RefineJob, read_probs
from ppl.refine.probabilities import DEFAULT_BACKGROUND, Background
from ppl.refine.specs import RefinerList, RefinerSpec, parse_refiners

__all__ = ["RefinerScore", "score_refiners"]


@dataclass(frozen=True)
class RefinerScore:
    """The score of all images after one refiner of a list.

    Args:
        label: the refiner, as a recipe writes it; `"CAM"` for the CAMs before the first refiner.
        miou: mean IoU over the classes, background included, in [0, 1].
        gain: difference to the mean IoU before this refiner.
        seconds: median CPU time of the refiner per image.
    """

    label: str
    miou: float
    gain: float
    seconds: float


def score_refiners(
    jobs: Iterable[RefineJob],
    masks: Mapping[str, Path | Callable[[], np.ndarray]],
    refiners: RefinerList,
    num_classes: int,
    *,
    background: Background = DEFAULT_BACKGROUND,
    num_workers: int = -1,
    progress: bool = True,
) -> tuple[tuple[RefinerScore, ...], tuple[BadFile, ...]]:
    """Compute the mean IoU of the CAMs and of the maps after each refiner, over all images that have a mask.

    The processes of a launch share the images, see `ppl.parallel.Share`.

    Args:
        jobs: the images and their CAMs; images without a mask are left out.
        masks: ground truth by image id, a file or a function that returns the mask; 255 is not scored.
        refiners: as for `parse_refiners`.
        num_classes: number of classes of the data set without the background.
        background: as for `cams_to_probs`.
        num_workers: number of workers; -1 for one per core.
        progress: show a bar on a terminal.

    Returns:
        The scores, the first one of the CAMs; and the images that could not be scored.

    Raises:
        PPLValueError: if no job has a mask, if no image could be scored, or for refiners that do not parse.

    Example:
        >>> import tempfile
        >>> from PIL import Image
        >>> from ppl.io import write_mask
        >>> with tempfile.TemporaryDirectory() as name:
        ...     folder = Path(name)
        ...     Image.new("RGB", (6, 4)).save(folder / "a.png")
        ...     write_mask(folder / "mask.png", np.ones((4, 6), np.uint8))
        ...     job = RefineJob("a", folder / "a.png", lambda: (np.ones((1, 2, 3), np.float32), np.array([0])))
        ...     masks = {"a": folder / "mask.png"}
        ...     scores, bad = score_refiners([job], masks, "guided_filter: 2", num_classes=1, background=0.2)
        >>> [(score.label, score.miou) for score in scores]
        [('CAM', 1.0), ('guided_filter: 2', 1.0)]
    """
    chosen = parse_refiners(refiners)
    scored = [job for job in jobs if job.image_id in masks]
    if not scored:
        raise PPLValueError("none of the images has a ground-truth mask: nothing to score")
    work = partial(_score_one, masks=masks, refiners=chosen, num_classes=num_classes, background=background)
    totals = [ConfusionMatrix(num_classes + 1) for _ in range(len(chosen) + 1)]
    seconds: list[list[float]] = [[] for _ in totals]
    bad = []
    share = current_share()
    own = share.part(scored)
    with progress_bar("score", len(own), show=progress) as advance:
        for result in parallel_map(partial(guarded, work), own, num_workers):
            if isinstance(result, BadFile):
                bad.append(result)
            else:
                for index, (counts, time_taken) in enumerate(result):
                    totals[index].counts += counts
                    seconds[index].append(time_taken)
            advance()
    bad = gather_bad(bad)
    for index, (total, of_share) in enumerate(zip(totals, seconds, strict=True)):
        shares = share.gather([total.counts.tolist(), of_share])
        total.counts = torch.tensor([counts for counts, _ in shares], dtype=total.counts.dtype).sum(dim=0)
        seconds[index] = [value for _, values in shares for value in values]
    if len(bad) == len(scored):
        raise PPLValueError(f"none of the {len(bad)} images could be scored; {bad[0].image_id}: {bad[0].reason}")
    scores: list[RefinerScore] = []
    for label, total, times in zip(["CAM", *(spec.label for spec in chosen)], totals, seconds, strict=True):
        miou = total.compute()["miou"]
        gain = miou - scores[-1].miou if scores else 0.0
        scores.append(RefinerScore(label, miou, gain, statistics.median(times)))
    return tuple(scores), tuple(sorted(bad, key=lambda file: file.image_id))


def _score_one(
    job: RefineJob,
    *,
    masks: Mapping[str, Path | Callable[[], np.ndarray]],
    refiners: tuple[RefinerSpec, ...],
    num_classes: int,
    background: Background,
) -> list[tuple[torch.Tensor, float]]:
    """Return the pixel counts and the CPU seconds of the CAMs and of each refiner, for one image."""
    source = masks[job.image_id]
    target = source() if callable(source) else read_mask(source)
    image, probs, labels = read_probs(job, background)
    counts = [(_counts(target, labels[probs.argmax(axis=0)], num_classes), 0.0)]
    start = time.thread_time()
    for _, refined in iterate_refiners(refiners, image, probs, labels):
        seconds = time.thread_time() - start
        counts.append((_counts(target, labels[refined.argmax(axis=0)], num_classes), seconds))
        start = time.thread_time()
    return counts


def _counts(target: np.ndarray, prediction: np.ndarray, num_classes: int) -> torch.Tensor:
    matrix = ConfusionMatrix(num_classes + 1)
    matrix.update(target, prediction)
    return matrix.counts
