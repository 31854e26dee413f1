"""Files written by threads while the next ones are computed."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

import joblib

__all__ = ["written_behind"]

_MOST = 8


@contextmanager
def written_behind(jobs: int) -> Iterator[Callable[..., None]]:
    """Yields `submit(write, *args)`; all is written when the block is left.

    Compressing releases the interpreter's lock, and beside a GPU it would take most of the time. No more is in memory
    than one thing for each thread, and the one that waits for them.

    Args:
        jobs: threads; -1 for one per core. No more than 8 are used.

    Raises:
        Exception: what a write raised, at the next call of `submit` or at the end.

    Example:
        >>> done = []
        >>> with written_behind(2) as submit:
        ...     submit(done.append, "a file")
        >>> done
        ['a file']
    """
    threads = min(joblib.effective_n_jobs(jobs), _MOST)
    waiting: deque[Future[None]] = deque()

    def submit(write: Callable[..., None], *args: object) -> None:
        waiting.append(pool.submit(write, *args))
        while len(waiting) > threads or (waiting and waiting[0].done()):
            waiting.popleft().result()

    with ThreadPoolExecutor(threads) as pool:
        yield submit
        for future in waiting:
            future.result()
