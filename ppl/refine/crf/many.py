"""The CRF over a folder's worth of images: several at a time, never more than a few in memory."""

from __future__ import annotations

import itertools
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from ppl.errors import PPLTypeError, PPLValueError
from ppl.refine.crf.inference import crf

__all__ = ["crf_many"]


def crf_many(
    images: Iterable[Any | Callable[[], Any]],
    probs: Iterable[Any | Callable[[], Any]],
    *,
    workers: int | None = None,
    function: Callable[..., Any] = crf,
    **settings: Any,
) -> Iterator[Any]:
    """Refine many images in as many threads as there are cores, in order, with bounded memory.

    The native engine releases the GIL, so that threads do; pydensecrf holds it, so that threads gain nothing there.
    At most `2 * workers` images are under way or waiting to be taken.

    Args:
        images: (H, W, 3) uint8 arrays, or functions without arguments that return one, which are then called in the
            worker's thread: the place to decode a file.
        probs: as many (L, H, W) maps, or functions that return them.
        workers: number of threads; all cores available to the process by default.
        function: what to call with image, maps and settings: `crf`, or for instance `crf_preset`.
        **settings: passed on to it.

    Yields:
        What `crf` returns, for one image after the other.

    Raises:
        PPLTypeError: if `workers` is not an int.
        PPLValueError: if `workers` is not positive, or if there are more images than maps or the reverse; and whatever
            `crf` raises, when the turn of that image comes.

    Example:
        >>> import numpy as np
        >>> image, maps = np.zeros((4, 5, 3), np.uint8), np.full((2, 4, 5), 0.5, np.float32)
        >>> [refined.shape for refined in crf_many([image] * 3, [maps, lambda: maps, maps], workers=2)]
        [(2, 4, 5), (2, 4, 5), (2, 4, 5)]
    """
    if workers is not None and (isinstance(workers, bool) or not isinstance(workers, int)):
        raise PPLTypeError(f"workers must be an int or None, got {workers!r}")
    if workers is not None and workers < 1:
        raise PPLValueError(f"workers must be at least 1, got {workers}")
    return _in_order(images, probs, workers or _cores(), function, settings)


def _in_order(
    images: Iterable[Any], probs: Iterable[Any], workers: int, function: Callable[..., Any], settings: dict[str, Any]
) -> Iterator[Any]:
    def work(image: Any, maps: Any) -> Any:
        return function(image() if callable(image) else image, maps() if callable(maps) else maps, **settings)

    missing = object()
    pool = ThreadPoolExecutor(workers, thread_name_prefix="crf")
    waiting: deque[Future[Any]] = deque()
    try:
        for number, (image, maps) in enumerate(itertools.zip_longest(images, probs, fillvalue=missing)):
            if image is missing or maps is missing:
                raise PPLValueError(
                    f"there are {number} {'images' if image is missing else 'maps'} but more of the other"
                )
            waiting.append(pool.submit(work, image, maps))
            if len(waiting) >= 2 * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()
        pool.shutdown(wait=True)


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
