"""Many images over all cores, or over a cluster: resumed, with a progress bar, and not stopped by one bad file."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import joblib
import torch
from joblib.parallel import get_active_backend
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from ppl.errors import MissingExtraError, PPLValueError
from ppl.io import BadFile, FileWriteError, atomic_write

__all__ = [
    "BadFile",
    "FolderSummary",
    "check_workers",
    "guarded",
    "has_record",
    "keep_record",
    "parallel_map",
    "progress_bar",
    "remove_result",
    "run_jobs",
]

T = TypeVar("T")

_RECORD = "refine.json"


@dataclass(frozen=True)
class FolderSummary:
    """What a run over a folder did.

    Args:
        done: how many results it wrote.
        skipped: how many were there already.
        bad: the images that were left out.
        seconds: wall time.

    Example:
        >>> FolderSummary(done=20, skipped=0, bad=(), seconds=4.0).images_per_second
        5.0
    """

    done: int
    skipped: int
    bad: tuple[BadFile, ...]
    seconds: float

    @property
    def images_per_second(self) -> float:
        """Results written per second of wall time."""
        return self.done / self.seconds if self.seconds else 0.0


def remove_result(_job: Any, path: Path) -> None:
    """Remove the result of a job, if there is one."""
    path.unlink(missing_ok=True)


def run_jobs(
    jobs: Sequence[Any],
    work: Callable[[Any, Path], None],
    out: Path,
    *,
    record: Mapping[str, Any],
    n_jobs: int = -1,
    overwrite: bool = False,
    progress: bool = True,
    description: str = "refine",
    is_done: Callable[[Any, Path], bool] = lambda job, path: path.exists(),
    remove: Callable[[Any, Path], None] = remove_result,
) -> FolderSummary:
    """Run `work` for every job whose result `out/<image_id>.png` is not there yet.

    Threads of this process by default: what takes the time releases the interpreter's lock. Inside
    `joblib.parallel_config(backend="loky" | "dask" | "ray")` the same call goes to processes or a cluster; the folders
    must then be visible from there. At most two jobs per worker are in memory.

    Args:
        jobs: things with an `image_id`; picklable, for a cluster.
        work: gets a job and the path of its result, which it writes whole or not at all; raises if it cannot.
        out: folder of the results.
        record: how they are made, for `out/refine.json`. Results made in another way are not mixed in.
        n_jobs: workers; -1 for one per core.
        overwrite: run all jobs, whatever is there; their old results are removed first.
        progress: a bar with images per second and the time left, on a terminal only.
        description: in front of the bar.
        is_done: whether the result of a job, by its path, is there and need not be made again.
        remove: takes away the old result of a job, by its path, before it is made again.

    Returns:
        What was done. An error in a job makes it a `BadFile`.

    Raises:
        PPLValueError: if two jobs have the same image id, `n_jobs` is 0, or `out` holds results with another record.
        FileWriteError: if results cannot be written: the next ones could not either.
        MissingExtraError: if a step needs a package that is not installed.
    """
    check_workers(n_jobs)
    _check_unique(jobs)
    if overwrite:  # whatever stops this run, nothing made in the old way stands under the new record
        for job in jobs:
            remove(job, _result(out, job))
    keep_record(out / _RECORD, record, overwrite)
    waiting = [job for job in jobs if overwrite or not is_done(job, _result(out, job))]
    bad = []
    start = time.perf_counter()
    with progress_bar(description, len(jobs), len(jobs) - len(waiting), progress) as advance:
        for failure in parallel_map(partial(guarded, partial(_make, work, remove, out)), waiting, n_jobs):
            if failure is not None:
                bad.append(failure)
            advance()
    order = {job.image_id: index for index, job in enumerate(jobs)}
    bad.sort(key=lambda file: order[file.image_id])
    seconds = time.perf_counter() - start
    return FolderSummary(len(waiting) - len(bad), len(jobs) - len(waiting), tuple(bad), seconds)


def _result(out: Path, job: Any) -> Path:
    return out / f"{job.image_id}.png"


def check_workers(n_jobs: int) -> int:
    """A number of workers as joblib takes it: any but 0.

    Raises:
        PPLValueError: for 0.

    Example:
        >>> check_workers(-1)
        -1
    """
    if n_jobs == 0:
        raise PPLValueError("jobs must be -1 (one a core) or 1 and more, got 0")
    return n_jobs


def has_record(path: Path, record: Mapping[str, Any]) -> bool:
    """Whether the record file of a folder says just this."""
    return path.exists() and path.read_text(encoding="utf-8") == json.dumps(record, indent=2)


def keep_record(path: Path, record: Mapping[str, Any], overwrite: bool = False) -> None:
    """Write how the results of a folder are made, unless they were made in another way.

    Args:
        path: the record file.
        record: what JSON can hold.
        overwrite: write it in any case.

    Raises:
        PPLValueError: if the folder has another record.
        FileWriteError: if it cannot be written.
    """
    if path.exists() and not overwrite and not has_record(path, record):
        raise PPLValueError(
            f"{path.parent} holds results that were made in another way (see {path.name}): choose another folder, or"
            " overwrite them (--overwrite)"
        )
    with atomic_write(path, "w") as handle:
        handle.write(json.dumps(record, indent=2))


def _check_unique(jobs: Sequence[Any]) -> None:
    seen = set()
    for job in jobs:
        if job.image_id in seen:
            raise PPLValueError(f"two jobs are named {job.image_id!r}: their results would overwrite each other")
        seen.add(job.image_id)


def _make(work: Callable[[Any, Path], None], remove: Callable[[Any, Path], None], out: Path, job: Any) -> None:
    remove(job, _result(out, job))  # of a job that turned bad nothing old may stay
    work(job, _result(out, job))


def guarded(work: Callable[[Any], T], job: Any) -> T | BadFile:
    """`work(job)`, or why it could not be done.

    Args:
        work: any function of a job.
        job: something with an `image_id`.

    Returns:
        What `work` returns, or a `BadFile`.

    Raises:
        FileWriteError: from `work`: the next jobs could not write either.
        MissingExtraError: likewise.

    Example:
        >>> from types import SimpleNamespace
        >>> guarded(lambda job: 1 / 0, SimpleNamespace(image_id="a"))
        BadFile(image_id='a', reason='division by zero')
    """
    try:
        return work(job)
    except (FileWriteError, MissingExtraError):
        raise
    except Exception as error:  # one broken image must not end a run of thousands
        return BadFile(job.image_id, " ".join(str(error).split()) or type(error).__name__)


def parallel_map(work: Callable[[Any], T], jobs: Sequence[Any], n_jobs: int) -> Iterator[T]:
    """Results of `work` for all jobs, as they come; in batches where the backend cannot hand them out one by one.

    Args:
        work: picklable, for processes and clusters.
        jobs: what it is called with.
        n_jobs: workers; -1 for one per core.

    Yields:
        The results, in no particular order.

    Example:
        >>> sorted(parallel_map(abs, [-1, 2], n_jobs=2))
        [1, 2]
    """
    backend, _ = get_active_backend(prefer="threads")
    workers = joblib.effective_n_jobs(check_workers(n_jobs))
    with _single_threaded(workers > 1):
        if backend.supports_return_generator:
            yield from joblib.Parallel(n_jobs, prefer="threads", return_as="generator_unordered")(
                joblib.delayed(work)(job) for job in jobs
            )
            return
        size = 16 * max(workers, 1)
        for first in range(0, len(jobs), size):
            batch = jobs[first : first + size]
            yield from joblib.Parallel(n_jobs, prefer="threads")(joblib.delayed(work)(job) for job in batch)


@contextmanager
def _single_threaded(wanted: bool) -> Iterator[None]:
    """Torch's own threads off while the images themselves run in parallel."""
    before = torch.get_num_threads()
    if wanted:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class _Speed(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:.1f} images/s" if task.speed else "- images/s", style="progress.data.speed")


@contextmanager
def progress_bar(description: str, total: int, done: int, wanted: bool) -> Iterator[Callable[[], None]]:
    """A bar with images per second and the time left, on a terminal only; yields the function that advances it."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), _Speed(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not (wanted and console.is_terminal)) as bar:
        task = bar.add_task(description, total=total, completed=done)
        yield partial(bar.advance, task)
