"""Work over many images: the worker pool, the progress bar, and folders that are filled job by job."""

from __future__ import annotations

from ppl.parallel.bad_file import BadFile
from ppl.parallel.pool import check_workers, guarded, parallel_map
from ppl.parallel.progress import Advance, progress_bar, tracked
from ppl.parallel.records import Record
from ppl.parallel.run_jobs import FolderSummary, run_jobs

__all__ = [
    "Advance",
    "BadFile",
    "FolderSummary",
    "Record",
    "check_workers",
    "guarded",
    "parallel_map",
    "progress_bar",
    "run_jobs",
    "tracked",
]
