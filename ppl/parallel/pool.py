"""The worker pool: one function over many jobs, by threads, processes or a cluster."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cache, partial
from typing import Any, TypeVar

import joblib
import torch
from joblib.parallel import get_active_backend
from threadpoolctl import ThreadpoolController

from ppl.errors import MissingExtraError, PPLValueError
from ppl.io.files import FileWriteError
from ppl.parallel.bad_file import BadFile

__all__ = ["check_workers", "count_workers", "guarded", "parallel_map"]

T = TypeVar("T")


def check_workers(num_workers: int) -> int:
    """Return a number of workers as joblib takes it, or refuse 0.

    Raises:
        PPLValueError: for 0.

    Example:
        >>> check_workers(-1)
        -1
    """
    if num_workers == 0:
        raise PPLValueError("num_workers must be -1 (one worker per core) or at least 1, got 0")
    return num_workers


def count_workers(num_workers: int) -> int:
    """Return the number of workers of this process; -1 is one per core, or per core of this process's part of them.

    The processes that `accelerate launch` or `torchrun` started on one machine share its cores.

    Args:
        num_workers: -1 or at least 1.

    Raises:
        PPLValueError: for 0.

    Example:
        >>> count_workers(3)
        3
    """
    count: int = joblib.effective_n_jobs(check_workers(num_workers))
    return count if num_workers > 0 else max(1, count // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


def parallel_map(work: Callable[[Any], T], jobs: Sequence[Any], num_workers: int) -> Iterator[T]:
    """Yield the results of `work` for all jobs, in the order in which they end.

    The workers are threads of this process, unless the call stands inside
    `joblib.parallel_config(backend="loky" | "dask" | "ray")`. With several workers each of them computes on one core;
    the thread count of the caller does not change. A backend that returns lists gets the jobs in batches.

    Args:
        work: a function of one job; picklable for processes and clusters.
        jobs: the arguments of the calls.
        num_workers: the number of workers; -1 for one per core, see `count_workers`.

    Yields:
        The results, in no particular order.

    Raises:
        PPLValueError: if `num_workers` is 0.

    Example:
        >>> sorted(parallel_map(abs, [-1, 2], num_workers=2))
        [1, 2]
    """
    backend, _ = get_active_backend(prefer="threads")
    workers = count_workers(num_workers)
    call = joblib.delayed(partial(_on_one_core, work) if workers > 1 else work)
    if backend.supports_return_generator:
        pool = joblib.Parallel(workers, prefer="threads", return_as="generator_unordered")
        yield from pool(call(job) for job in jobs)
        return
    size = 16 * workers
    for first in range(0, len(jobs), size):
        yield from joblib.Parallel(workers, prefer="threads")(call(job) for job in jobs[first : first + size])


def guarded(work: Callable[[Any], T], job: Any) -> T | BadFile:
    """Return `work(job)`, or a `BadFile` with the reason if the job fails.

    Args:
        work: a function of one job.
        job: an object with a `image_id`.

    Raises:
        FileWriteError: from `work`: later jobs could not write either.
        MissingExtraError: from `work`: later jobs would miss the package too.

    Example:
        >>> from types import SimpleNamespace
        >>> guarded(lambda job: 1 / 0, SimpleNamespace(image_id="a"))
        BadFile(image_id='a', reason='division by zero')
    """
    try:
        return work(job)
    except (FileWriteError, MissingExtraError):
        raise
    except Exception as error:  # one unreadable image must not end a run over thousands
        return BadFile(job.image_id, " ".join(str(error).split()) or type(error).__name__)


def _on_one_core(work: Callable[[Any], T], job: Any) -> T:
    """Run a job with one OpenMP thread. OpenMP keeps the number per thread, so other threads keep theirs."""
    torch.get_num_threads()  # torch sets the number of a new thread at its first call, which must come before ours
    with _one_openmp_thread():
        return work(job)


def _one_openmp_thread() -> AbstractContextManager[Any]:
    controller = _openmp()
    return nullcontext() if controller is None else controller.limit(limits=1)


@cache
def _openmp() -> Any:
    """Return the controller of the OpenMP runtimes of this process, or None if there is none."""
    controller = ThreadpoolController().select(user_api="openmp")
    return controller if len(controller) else None
