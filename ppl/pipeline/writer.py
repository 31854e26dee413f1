"""Write files in threads while the next results are computed."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

from ppl.parallel import count_workers

__all__ = ["background_writer"]

_MAX_THREADS = 8


@contextmanager
def background_writer(num_workers: int) -> Iterator[Callable[..., None]]:
    """Yield `submit(write, *args)`, which calls `write(*args)` in a thread. The block ends when all calls have ended.

    Compression releases the interpreter's lock, and would take longer than the maps themselves beside a GPU. `submit`
    waits while every thread is busy, so that memory holds at most one result per thread and one more.

    Args:
        num_workers: threads; -1 for one per core. At most 8 are used.

    Raises:
        Exception: the error of a call, at the next `submit` or at the end of the block.

    Example:
        >>> done = []
        >>> with background_writer(2) as submit:
        ...     submit(done.append, "a file")
        >>> done
        ['a file']
    """
    threads = min(count_workers(num_workers), _MAX_THREADS)
    waiting: deque[Future[None]] = deque()

    def submit(write: Callable[..., None], *args: object) -> None:
        waiting.append(pool.submit(write, *args))
        while len(waiting) > threads or (waiting and waiting[0].done()):
            waiting.popleft().result()

    with ThreadPoolExecutor(threads) as pool:
        yield submit
        for future in waiting:
            future.result()
