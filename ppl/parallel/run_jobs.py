"""Jobs that fill a folder with the results of images: resumed after a kill, and not stopped by one bad image."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeAlias

from ppl.errors import PPLValueError
from ppl.io.fingerprint import fingerprint
from ppl.parallel.bad_file import BadFile, gather_bad
from ppl.parallel.pool import check_workers, guarded, parallel_map
from ppl.parallel.progress import progress_bar
from ppl.parallel.records import Record
from ppl.parallel.share import current_share

__all__ = ["RECORD_FILE", "FolderSummary", "Job", "finished_jobs", "run_jobs"]

Begin: TypeAlias = Callable[[Any], tuple[str, str]]
"""Function from a job to its image id and the key of its inputs; it removes the old result."""

Outcome: TypeAlias = tuple[str, str] | BadFile
"""Image id and key of a finished job, or the report of a bad image."""

RECORD_FILE = "record.jsonl"
"""Name of the record of finished work in a folder of results."""


class Job(Protocol):
    """The work on one image, as `run_jobs` needs to know it."""

    @property
    def image_id(self) -> str:
        """Name of the result."""

    def key(self) -> Any:
        """Return the hashes of the content of all inputs, in a form that `json` can write."""


@dataclass(frozen=True)
class FolderSummary:
    """The outcome of a run over a folder.

    Args:
        done: number of results that the run wrote.
        skipped: number of results that were finished before.
        bad: images that were left out.
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


def run_jobs(
    jobs: Sequence[Any],
    work: Callable[[Any], None],
    out: Path,
    *,
    files: Callable[[Any], Sequence[Path]],
    settings: Mapping[str, Any],
    many: Callable[[Sequence[Any], Begin], Iterator[Outcome]] | None = None,
    remove: Callable[[Any], None] | None = None,
    num_workers: int = -1,
    overwrite: bool = False,
    progress: bool = True,
    description: str = "refine",
) -> FolderSummary:
    """Run `work` for every job whose result is not finished, and keep `out/record.jsonl`, the record of finished work.

    A result is finished if the record says that it was made from inputs of the same content with the same settings.
    The workers are threads of this process. Inside `joblib.parallel_config(backend="loky" | "dask" | "ray")` they are
    processes or a cluster; the folders must then be visible from there. At most two jobs per worker are in memory.
    The processes of a launch share the jobs, and each of them must make the call; see `Share`.

    Args:
        jobs: the `Job`s; picklable for processes and clusters.
        work: a function that writes the files of a job whole or not at all, or raises an error.
        out: folder of the results.
        files: function from a job to the files of its result.
        settings: the settings of all results, in a form that `json` can write.
        many: function that does the work of all jobs in place of `work`, such as in batches on a GPU. It gets the jobs
            and a function `begin`, calls `begin(job)` before it reads the inputs of a job, and yields what `begin`
            returned after it wrote the files of the job, or a `BadFile`.
        remove: function that removes the old result of a job; by default it removes `files`.
        num_workers: the number of workers; -1 for one per core.
        overwrite: run all jobs; old results are removed first.
        progress: show a bar with images per second and the time left, on a terminal only.
        description: the text in front of the bar.

    Returns:
        The outcome, of all processes of a launch together. A job whose `work` raises an error becomes a `BadFile`.

    Raises:
        PPLValueError: if two jobs have the same image id, `num_workers` is 0, or `out` holds results that were made
            with other settings or by other means.
        FileWriteError: if results cannot be written: later jobs could not write either.
        MissingExtraError: if a package is missing: later jobs would miss it too.
    """
    check_workers(num_workers)
    _check_unique(jobs)
    share, order = current_share(), {job.image_id: index for index, job in enumerate(jobs)}
    jobs = share.part(jobs)
    remove = remove or partial(_remove, files)
    record = Record(out / RECORD_FILE)
    if overwrite:  # before the new settings are recorded, so that no old result is ever taken for a new one
        for job in jobs:
            remove(job)
        record.remove([job.image_id for job in jobs])
    else:
        _check_settings(record, settings, [path for job in jobs for path in files(job)])
    record.begin(settings)
    start = time.perf_counter()
    finished = _finished(record, jobs, files, settings, num_workers)
    waiting = [job for job in jobs if job.image_id not in finished]
    files_of = {job.image_id: files(job) for job in waiting}
    bad = []
    begin = partial(_begin, remove, settings)
    one = partial(guarded, partial(_do, work, begin))
    outcomes = many(waiting, begin) if many else parallel_map(one, waiting, num_workers)
    with progress_bar(description, len(jobs), completed=len(finished), show=progress) as advance:
        for outcome in outcomes:
            if isinstance(outcome, BadFile):
                bad.append(outcome)
            else:
                image_id, key = outcome
                record.add(image_id, key, *files_of[image_id])
            advance()
    record.end()
    counts = share.gather([len(waiting) - len(bad), len(finished)])
    bad = sorted(gather_bad(bad), key=lambda file: order[file.image_id])
    done, skipped = map(sum, zip(*counts, strict=True))
    return FolderSummary(done, skipped, tuple(bad), time.perf_counter() - start)


def finished_jobs(
    jobs: Sequence[Any],
    out: Path,
    *,
    files: Callable[[Any], Sequence[Path]],
    settings: Mapping[str, Any],
    num_workers: int = -1,
) -> set[str]:
    """Return the image ids of the jobs that `run_jobs` would skip, without any work.

    Args:
        jobs: the `Job`s.
        out: folder of the results.
        files: function from a job to the files of its result.
        settings: the settings of all results.
        num_workers: the number of workers that read the inputs; -1 for one per core.
    """
    record = Record(out / RECORD_FILE)
    if record.settings is None or fingerprint(record.settings) != fingerprint(settings):
        return set()
    return _finished(record, jobs, files, settings, num_workers)


def _finished(
    record: Record,
    jobs: Sequence[Any],
    files: Callable[[Any], Sequence[Path]],
    settings: Mapping[str, Any],
    num_workers: int,
) -> set[str]:
    known = [job for job in jobs if job.image_id in record and all(path.is_file() for path in files(job))]
    keys = dict(parallel_map(partial(_key, settings), known, num_workers))
    return {job.image_id for job in known if record.is_finished(job.image_id, keys[job.image_id], *files(job))}


def _check_settings(record: Record, settings: Mapping[str, Any], files: Sequence[Path]) -> None:
    """Refuse a folder whose results were made with other settings, or by a program that left no record."""
    folder, fix = record.path.parent, "choose another folder, or overwrite the results (--overwrite)"
    if record.settings is None:
        foreign = next((path for path in files if path.exists()), None)
        if foreign is not None:
            raise PPLValueError(f"{foreign} was made in another way, since {record.path} does not list it: {fix}")
    elif fingerprint(record.settings) != fingerprint(settings):
        raise PPLValueError(f"{folder} holds results that were made in another way (see {record.path.name}): {fix}")


def _check_unique(jobs: Sequence[Any]) -> None:
    seen = set()
    for job in jobs:
        if job.image_id in seen:
            raise PPLValueError(f"two jobs are named {job.image_id!r}: their results would overwrite each other")
        seen.add(job.image_id)


def _key(settings: Mapping[str, Any], job: Any) -> tuple[str, str]:
    return job.image_id, fingerprint({"settings": settings, "inputs": job.key()})


def _begin(remove: Callable[[Any], None], settings: Mapping[str, Any], job: Any) -> tuple[str, str]:
    """Return the image id and the key of a job, and remove its old result, which must not stay if the job is bad."""
    key = _key(settings, job)
    remove(job)
    return key


def _do(work: Callable[[Any], None], begin: Begin, job: Any) -> tuple[str, str]:
    result = begin(job)
    work(job)
    return result


def _remove(files: Callable[[Any], Sequence[Path]], job: Any) -> None:
    for path in files(job):
        path.unlink(missing_ok=True)
