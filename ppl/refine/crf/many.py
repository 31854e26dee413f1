"""The CRF over many images: several at a time, never more than a few in memory."""

from __future__ import annotations

import itertools
import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from ppl.errors import PPLTypeError, PPLValueError
from ppl.refine.crf.backends import solve
from ppl.refine.crf.config import CrfConfig
from ppl.refine.crf.inference import settings_of
from ppl.refine.crf.prepare import make_problem
from ppl.refine.crf.problem import Problem

__all__ = ["crf_many"]

_PIXELS_AT_ONCE = 4_000_000
"""Pixels of a batch on a GPU by default: some 4 GB, at about 1 kB a pixel."""


def crf_many(
    images: Iterable[Any | Callable[[], Any]],
    probs: Iterable[Any | Callable[[], Any]] | None = None,
    *,
    labels: Iterable[Any | Callable[[], Any]] | None = None,
    unary: Iterable[Any | Callable[[], Any]] | None = None,
    features: Iterable[Any | Callable[[], Any]] | None = None,
    num_workers: int = -1,
    batch_size: int | None = None,
    num_labels: int | None = None,
    preset: str | CrfConfig | None = None,
    backend: str = "auto",
    **settings: Any,
) -> Iterator[Any]:
    """Refine many images in several threads, in order, with bounded memory.

    On the CPU each thread refines an image of its own: the native engine releases the GIL; pydensecrf holds it, so that
    threads gain nothing there. The torch engine, which runs where maps live on a GPU, gets a batch of images at once,
    of any sizes and numbers of labels; the threads prepare the next images meanwhile. At most `2 * num_workers` images,
    and a batch, are under way or waiting to be taken.

    Args:
        images: (H, W, 3) uint8 arrays, or functions without arguments that return one; functions are called in the
            worker's thread, which is the place to decode a file.
        probs: (L, H, W) maps of each image, or functions that return them. Exactly one of `probs`, `labels` and `unary`
            is given.
        labels: (H, W) label maps of each image, or functions that return them.
        unary: (L, H, W) energies of each image, or functions that return them.
        features: (H, W, C) features of each image, or functions that return them.
        num_workers: number of threads; -1 for one per core.
        batch_size: number of images that the torch engine gets at once; by default as many as have 4 million pixels
            together on a GPU, which takes some 4 GB, and one on the CPU.
        num_labels: as for `crf`.
        preset: as for `crf`.
        backend: as for `crf`.
        **settings: settings of `CrfConfig`.

    Yields:
        The result of `crf` for one image after the other.

    Raises:
        PPLTypeError: if `num_workers` or `batch_size` is not an int.
        PPLValueError: if `batch_size` or `num_workers` is out of range, or if there are more images than maps or the
            reverse; and any error that `crf` raises, when the turn of that image comes.

    Example:
        >>> import numpy as np
        >>> image, maps = np.zeros((4, 5, 3), np.uint8), np.full((2, 4, 5), 0.5, np.float32)
        >>> [refined.shape for refined in crf_many([image] * 3, [maps, lambda: maps, maps], num_workers=2)]
        [(2, 4, 5), (2, 4, 5), (2, 4, 5)]
    """
    for name, value in (("num_workers", num_workers), ("batch_size", 1 if batch_size is None else batch_size)):
        if isinstance(value, bool) or not isinstance(value, int):
            raise PPLTypeError(f"{name} must be an int, got {value!r}")
    if num_workers < 1 and num_workers != -1:
        raise PPLValueError(f"num_workers must be -1 (one worker per core) or at least 1, got {num_workers}")
    if batch_size is not None and batch_size < 1:
        raise PPLValueError(f"batch_size must be at least 1, got {batch_size}")
    given = {"image": images, "probs": probs, "labels": labels, "unary": unary, "features": features}
    streams = {name: values for name, values in given.items() if values is not None}
    options = {"num_labels": num_labels, "backend": backend, "config": settings_of(preset, settings)}
    return _batched(_in_order(streams, _cores() if num_workers == -1 else num_workers, options), batch_size)


def _in_order(
    streams: dict[str, Iterable[Any]], workers: int, options: dict[str, Any]
) -> Generator[Callable[[], Any], None, None]:
    """Yield for each image a function that waits for its thread and returns a result, or a problem for PyTorch."""

    def work(given: dict[str, Any]) -> Any:
        arrays = {name: value() if callable(value) else value for name, value in given.items()}
        problem = make_problem(**arrays, **options)
        return problem if problem.backend == "torch" else solve([problem])[0]

    def aligned() -> Iterator[dict[str, Any]]:
        for number, values in enumerate(itertools.zip_longest(*streams.values(), fillvalue=missing)):
            given = dict(zip(streams, values, strict=True))
            short = [name for name, value in given.items() if value is missing]
            if short:
                names = {"image": "images", "probs": "maps"}
                raise PPLValueError(f"there are {number} {names.get(short[0], short[0])} but more of the other")
            yield given

    missing = object()
    pool = ThreadPoolExecutor(workers, thread_name_prefix="crf")
    waiting: deque[Future[Any]] = deque()
    failed: Exception | None = None
    try:
        source = aligned()
        while True:
            try:
                given = next(source)
            except StopIteration:
                break
            except Exception as error:  # any error of the caller's iterables waits for the images before it
                failed = error
                break
            waiting.append(pool.submit(work, given))
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


def _batched(made: Generator[Callable[[], Any], None, None], batch_size: int | None) -> Iterator[Any]:
    """Yield the results; problems for PyTorch are gathered until there are enough."""
    problems: list[Problem] = []
    try:
        for result in made:
            try:
                answer = result()
            except BaseException:
                # The results of the images before the bad one come first.
                yield from solve(problems)
                raise
            if not isinstance(answer, Problem):
                yield from solve(problems)
                yield answer
                problems = []
                continue
            problems.append(answer)
            if _enough(problems, batch_size):
                yield from solve(problems)
                problems = []
        yield from solve(problems)
    finally:
        made.close()


def _enough(problems: list[Problem], batch_size: int | None) -> bool:
    if batch_size is not None:
        return len(problems) >= batch_size
    # The next image may be as large as the largest so far.
    largest = max(problem.pixels for problem in problems)
    return problems[0].device == "cpu" or (len(problems) + 1) * largest > _PIXELS_AT_ONCE


def _cores() -> int:
    """Return the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
