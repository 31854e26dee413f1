"""The CRF over a folder's worth of images: several at a time, never more than a few in memory."""

from __future__ import annotations

import itertools
import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from ppl.errors import PPLTypeError, PPLValueError
from ppl.refine.crf.inference import crf, crf_from_labels, crf_preset
from ppl.refine.crf.problem import Problem, from_labels, from_preset, from_probs, solve

__all__ = ["crf_many"]

_PROBLEMS: dict[Callable[..., Any], Callable[..., Problem]] = {
    crf: from_probs,
    crf_from_labels: from_labels,
    crf_preset: from_preset,
}

_PIXELS_AT_ONCE = 4_000_000
"""On a GPU, by default: some 4 GB, at about 1 kB a pixel."""


def crf_many(
    images: Iterable[Any | Callable[[], Any]],
    probs: Iterable[Any | Callable[[], Any]],
    *,
    workers: int | None = None,
    batch: int | None = None,
    function: Callable[..., Any] = crf,
    **settings: Any,
) -> Iterator[Any]:
    """Refine many images in as many threads as there are cores, in order, with bounded memory.

    On the CPU each thread refines an image of its own: the native engine releases the GIL; pydensecrf holds it, so that
    threads gain nothing there. The torch engine, which runs where maps live on a GPU, gets a batch of images at once,
    of any sizes and numbers of labels; the threads prepare the next ones meanwhile. At most `2 * workers` images, and
    a batch, are under way or waiting to be taken.

    Args:
        images: (H, W, 3) uint8 arrays, or functions without arguments that return one, which are then called in the
            worker's thread: the place to decode a file.
        probs: as many (L, H, W) maps, or functions that return them.
        workers: number of threads; all cores available to the process by default.
        batch: how many images the torch engine gets at once; by default as many as have 4 million pixels together
            on a GPU, which takes some 4 GB, and one on the CPU.
        function: what to call with image, maps and settings: `crf`, `crf_preset`, `crf_from_labels`, or a function of
            your own, which gets single images.
        **settings: passed on to it.

    Yields:
        What `function` returns, for one image after the other.

    Raises:
        PPLTypeError: if `workers` or `batch` is not an int.
        PPLValueError: if one is not positive, or if there are more images than maps or the reverse; and whatever
            `crf` raises, when the turn of that image comes.

    Example:
        >>> import numpy as np
        >>> image, maps = np.zeros((4, 5, 3), np.uint8), np.full((2, 4, 5), 0.5, np.float32)
        >>> [refined.shape for refined in crf_many([image] * 3, [maps, lambda: maps, maps], workers=2)]
        [(2, 4, 5), (2, 4, 5), (2, 4, 5)]
    """
    for name, value in (("workers", workers), ("batch", batch)):
        if value is not None and (isinstance(value, bool) or not isinstance(value, int)):
            raise PPLTypeError(f"{name} must be an int or None, got {value!r}")
        if value is not None and value < 1:
            raise PPLValueError(f"{name} must be at least 1, got {value}")
    return _batched(_in_order(images, probs, workers or _cores(), function, settings), batch)


def _in_order(
    images: Iterable[Any], probs: Iterable[Any], workers: int, function: Callable[..., Any], settings: dict[str, Any]
) -> Generator[Callable[[], Any], None, None]:
    """For each image a function that waits for what its thread made: the answer, or a problem for PyTorch."""

    def work(image: Any, maps: Any) -> Any:
        image, maps = (value() if callable(value) else value for value in (image, maps))
        if function not in _PROBLEMS:
            return function(image, maps, **settings)
        problem = _PROBLEMS[function](image, maps, **settings)
        return problem if problem.backend == "torch" else solve([problem])[0]

    def pairs() -> Iterator[tuple[Any, Any]]:
        for number, (image, maps) in enumerate(itertools.zip_longest(images, probs, fillvalue=missing)):
            if image is missing or maps is missing:
                raise PPLValueError(
                    f"there are {number} {'images' if image is missing else 'maps'} but more of the other"
                )
            yield image, maps

    missing = object()
    pool = ThreadPoolExecutor(workers, thread_name_prefix="crf")
    waiting: deque[Future[Any]] = deque()
    failed: Exception | None = None
    try:
        source = pairs()
        while True:
            try:
                image, maps = next(source)
            except StopIteration:
                break
            except Exception as error:  # the images before it have their turn first
                failed = error
                break
            waiting.append(pool.submit(work, image, maps))
            if len(waiting) >= 2 * workers:
                yield waiting.popleft().result
        while waiting:
            yield waiting.popleft().result
        if failed is not None:
            raise failed
    finally:
        for future in waiting:
            future.cancel()
        pool.shutdown(wait=True)


def _batched(made: Generator[Callable[[], Any], None, None], batch: int | None) -> Iterator[Any]:
    """The answers; problems are gathered until there are enough of them."""
    problems: list[Problem] = []
    try:
        for result in made:
            try:
                answer = result()
            except BaseException:
                # The images before the bad one have their turn first.
                yield from solve(problems)
                raise
            if not isinstance(answer, Problem):
                yield from solve(problems)
                yield answer
                problems = []
                continue
            problems.append(answer)
            if _enough(problems, batch):
                yield from solve(problems)
                problems = []
        yield from solve(problems)
    finally:
        made.close()


def _enough(problems: list[Problem], batch: int | None) -> bool:
    if batch is not None:
        return len(problems) >= batch
    # As large as the largest: the next one is not known yet.
    largest = max(problem.pixels for problem in problems)
    return problems[0].device == "cpu" or (len(problems) + 1) * largest > _PIXELS_AT_ONCE


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
