"""Jobs that fill a folder, one file per image: resumed after a kill, and not stopped by one bad image."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ppl.errors import PPLValueError
from ppl.io.files import atomic_write
from ppl.parallel.bad_file import BadFile
from ppl.parallel.pool import check_workers, guarded, parallel_map
from ppl.parallel.progress import progress_bar

__all__ = ["FolderSummary", "has_record", "keep_record", "remove_result", "run_jobs"]

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
    num_workers: int = -1,
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
        num_workers: workers; -1 for one per core.
        overwrite: run all jobs, whatever is there; their old results are removed first.
        progress: a bar with images per second and the time left, on a terminal only.
        description: in front of the bar.
        is_done: whether the result of a job, by its path, is there and need not be made again.
        remove: takes away the old result of a job, by its path, before it is made again.

    Returns:
        What was done. An error in a job makes it a `BadFile`.

    Raises:
        PPLValueError: if two jobs have one image id, `num_workers` is 0, or `out` holds results with another record.
        FileWriteError: if results cannot be written: the next ones could not either.
        MissingExtraError: if a step needs a package that is not installed.
    """
    check_workers(num_workers)
    _check_unique(jobs)
    if overwrite:  # whatever stops this run, nothing made in the old way stands under the new record
        for job in jobs:
            remove(job, _result(out, job))
    keep_record(out / _RECORD, record, overwrite)
    waiting = [job for job in jobs if overwrite or not is_done(job, _result(out, job))]
    bad = []
    start = time.perf_counter()
    with progress_bar(description, len(jobs), completed=len(jobs) - len(waiting), show=progress) as advance:
        for failure in parallel_map(partial(guarded, partial(_make, work, remove, out)), waiting, num_workers):
            if failure is not None:
                bad.append(failure)
            advance()
    order = {job.image_id: index for index, job in enumerate(jobs)}
    bad.sort(key=lambda file: order[file.image_id])
    seconds = time.perf_counter() - start
    return FolderSummary(len(waiting) - len(bad), len(jobs) - len(waiting), tuple(bad), seconds)


def _result(out: Path, job: Any) -> Path:
    return out / f"{job.image_id}.png"


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
