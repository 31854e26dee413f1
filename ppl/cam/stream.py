"""Results of a stream of images: decoded ahead, in batches of equal size, in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor

from ppl.cam.compute import Job, compute_batch
from ppl.cam.images import to_tensor
from ppl.cam.result import CamResult
from ppl.errors import PPLValueError

__all__ = ["check_count", "stream_results"]

# Images that wait for others of their size: at most this many batches, and this many pixels.
_WINDOW_BATCHES = 4
_WINDOW_PIXELS = 2**24
# Threads that decode, and so many pictures are decoded ahead of their turn.
_READERS = 4


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
    for image in _tensors(images, job.classifier.data_config):
        window.append(image)
        height, width = window[-1].shape[1:]
        pixels += height * width
        per_pass = job.images_per_pass(height, width)
        if len(window) >= _WINDOW_BATCHES * per_pass or (pixels >= _WINDOW_PIXELS and len(window) >= per_pass):
            yield window
            window, pixels = [], 0
    if window:
        yield window


def _tensors(images: Iterable[Any], data_config: dict[str, Any]) -> Iterator[Tensor]:
    """The images as tensors; a few pictures and files are decoded ahead of their turn."""
    with ThreadPoolExecutor(_READERS) as readers:
        ahead: deque[Future[Tensor]] = deque()
        for number, image in enumerate(images):
            ahead.append(readers.submit(to_tensor, image, data_config, number))
            while len(ahead) > (0 if isinstance(image, Tensor) else _READERS):
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()


def _compute(job: Job, images: list[Tensor], rows: list[Tensor] | None, first: int) -> list[CamResult]:
    """Results of a window of images, batch by batch of equal sizes; `first` is the number of its first image."""
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
