"""What each step of a refinement gains, where ground-truth masks are at hand."""

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
from ppl.io import read_image, read_mask
from ppl.metrics import ConfusionMatrix
from ppl.parallel import BadFile, guarded, parallel_map, progress_bar
from ppl.refine.jobs import RefineJob, resize_maps
from ppl.refine.pipeline import Recipe, Step, iterate_steps, parse_steps
from ppl.refine.probabilities import Background, cams_to_probs

__all__ = ["StepScore", "score_steps"]


@dataclass(frozen=True)
class StepScore:
    """The score of all images after one step.

    Args:
        label: the step, as a recipe writes it; `"CAM"` for the state before the first.
        miou: mean IoU over the classes, background included.
        gain: difference to the state before.
        seconds: median CPU time of the step per image.
    """

    label: str
    miou: float
    gain: float
    seconds: float


def score_steps(
    jobs: Iterable[RefineJob],
    masks: Mapping[str, Path | Callable[[], np.ndarray]],
    steps: Recipe,
    num_classes: int,
    *,
    background: Background = 0.2,
    num_workers: int = -1,
    progress: bool = True,
) -> tuple[tuple[StepScore, ...], tuple[BadFile, ...]]:
    """Mean IoU before the first step and after each one, over all images that have a mask.

    Args:
        jobs: the images and their CAMs; those without a mask are left out.
        masks: ground truth by image id, a file or a function that returns it; 255 is not scored.
        steps: as for `parse_steps`.
        num_classes: classes of the dataset, the background not counted.
        background: as for `cams_to_probs`.
        num_workers: workers; -1 for one per core.
        progress: a bar on a terminal.

    Returns:
        The scores, the first for the CAMs themselves; and the images that could not be scored.

    Raises:
        PPLValueError: if no job has a mask, if none could be scored, or for steps that do not parse.

    Example:
        >>> import tempfile
        >>> from PIL import Image
        >>> from ppl.io import write_mask
        >>> with tempfile.TemporaryDirectory() as name:
        ...     folder = Path(name)
        ...     Image.new("RGB", (6, 4)).save(folder / "a.png")
        ...     write_mask(folder / "mask.png", np.ones((4, 6), np.uint8))
        ...     job = RefineJob("a", folder / "a.png", lambda: (np.ones((1, 2, 3), np.float32), np.array([0])))
        ...     scores, bad = score_steps([job], {"a": folder / "mask.png"}, "guided_filter: 2", num_classes=1)
        >>> [(score.label, score.miou) for score in scores]
        [('CAM', 1.0), ('guided_filter: 2', 1.0)]
    """
    chosen = parse_steps(steps)
    scored = [job for job in jobs if job.image_id in masks]
    if not scored:
        raise PPLValueError("none of the images has a ground-truth mask: nothing to score")
    work = partial(_score_one, masks=masks, steps=chosen, num_classes=num_classes, background=background)
    totals = [ConfusionMatrix(num_classes + 1) for _ in range(len(chosen) + 1)]
    seconds: list[list[float]] = [[] for _ in totals]
    bad = []
    with progress_bar("score", len(scored), show=progress) as advance:
        for result in parallel_map(partial(guarded, work), scored, num_workers):
            if isinstance(result, BadFile):
                bad.append(result)
            else:
                for index, (counts, time_taken) in enumerate(result):
                    totals[index].counts += counts
                    seconds[index].append(time_taken)
            advance()
    if len(bad) == len(scored):
        raise PPLValueError(f"none of the {len(bad)} images could be scored; {bad[0].image_id}: {bad[0].reason}")
    scores: list[StepScore] = []
    for label, total, times in zip(["CAM", *(step.label for step in chosen)], totals, seconds, strict=True):
        miou = total.compute()["miou"]
        gain = miou - scores[-1].miou if scores else 0.0
        scores.append(StepScore(label, miou, gain, statistics.median(times)))
    return tuple(scores), tuple(sorted(bad, key=lambda file: file.image_id))


def _score_one(
    job: RefineJob,
    *,
    masks: Mapping[str, Path | Callable[[], np.ndarray]],
    steps: tuple[Step, ...],
    num_classes: int,
    background: Background,
) -> list[tuple[torch.Tensor, float]]:
    """Counts and seconds of every state of one image."""
    source = masks[job.image_id]
    image, target = np.asarray(read_image(job.image)), source() if callable(source) else read_mask(source)
    maps, classes = job.load()
    values = np.concatenate([[0], classes + 1])
    probs = cams_to_probs(resize_maps(maps, (image.shape[0], image.shape[1])), background)
    states = [(_counts(target, values[probs.argmax(axis=0)], num_classes), 0.0)]
    start = time.thread_time()
    for _, refined in iterate_steps(steps, image, probs):
        taken = time.thread_time() - start
        states.append((_counts(target, values[refined.argmax(axis=0)], num_classes), taken))
        start = time.thread_time()
    return states


def _counts(target: np.ndarray, prediction: np.ndarray, num_classes: int) -> torch.Tensor:
    matrix = ConfusionMatrix(num_classes + 1)
    matrix.update(target, prediction)
    return matrix.counts
