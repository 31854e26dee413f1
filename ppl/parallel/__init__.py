"""Work over many images: shares of processes, the worker pool, the progress bar, folders filled job by job."""

from __future__ import annotations

from ppl.parallel.bad_file import BadFile, gather_bad
from ppl.parallel.pool import check_workers, count_workers, guarded, parallel_map
from ppl.parallel.progress import Advance, progress_bar, tracked
from ppl.parallel.records import Record
from ppl.parallel.run_jobs import FolderSummary, run_jobs
from ppl.parallel.share import LostProcessError, Share, current_share, shard
from ppl.parallel.spread import spread

__all__ = [
    "Advance",
    "BadFile",
    "FolderSummary",
    "LostProcessError",
    "Record",
    "Share",
    "check_workers",
    "count_workers",
    "current_share",
    "gather_bad",
    "guarded",
    "parallel_map",
    "progress_bar",
    "run_jobs",
    "shard",
    "spread",
    "tracked",
]
