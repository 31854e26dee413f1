"""Results of a stream of images: decoded ahead, in batches of equal size, in order."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

from ppl.cam.compute import compute_batch
from ppl.cam.images import read_ahead
from ppl.cam.job import Job
from ppl.cam.result import CamResult
from ppl.errors import PPLValueError

__all__ = ["check_count", "stream_results"]

# The most batches, and the most pixels, of images that wait for others of their size.
_WINDOW_BATCHES = 4
_WINDOW_PIXELS = 2**24


def stream_results(job: Job, images: Iterable[Any], rows: list[Tensor] | None) -> Iterator[CamResult]:
    """Yield the results of all images, in order.

    Args:
        job: model and settings.
        images: images of any kind.
        rows: per image its classes, or None for those that the model predicts.

    Raises:
        PPLValueError: if there are more or fewer rows than images.
    """
    done = 0
    for window in _windows(job, images):
        end = done + len(window)
        if rows is not None and end > len(rows):
            check_count(end, len(rows))
        yield from _compute(job, window, None if rows is None else rows[done:end], done)
        done = end
    if rows is not None:
        check_count(done, len(rows))


def check_count(images: int, rows: int) -> None:
    """Raise PPLValueError if there is not one row of labels per image."""
    if images != rows:
        raise PPLValueError(f"labels must hold one row per image: {images} images, but {rows} rows")


def _windows(job: Job, images: Iterable[Any]) -> Iterator[list[Tensor]]:
    """Read images until there are enough of them to form batches of equal sizes."""
    window: list[Tensor] = []
    pixels = 0
    for image in read_ahead(images, job.classifier.data_config):
        window.append(image)
        height, width = window[-1].shape[1:]
        pixels += height * width
        per_pass = job.images_per_pass(height, width)
        if len(window) >= _WINDOW_BATCHES * per_pass or (pixels >= _WINDOW_PIXELS and len(window) >= per_pass):
            yield window
            window, pixels = [], 0
    if window:
        yield window


def _compute(job: Job, images: list[Tensor], rows: list[Tensor] | None, first: int) -> list[CamResult]:
    """Compute the results of a window of images in batches of equal size; `first` is the index of its first image."""
    groups: dict[torch.Size, list[int]] = {}
    for place, image in enumerate(images):
        groups.setdefault(image.shape, []).append(place)
    results: dict[int, CamResult] = {}
    for shape, members in groups.items():
        step = job.images_per_pass(shape[1], shape[2])
        for start in range(0, len(members), step):
            batch = members[start : start + step]
            own_rows = None if rows is None else [rows[place] for place in batch]
            found = compute_batch(job, [images[place] for place in batch], own_rows, [first + place for place in batch])
            results.update(zip(batch, found, strict=True))
    return [results[place] for place in range(len(images))]
