"""Progress bars: on a terminal, and only there."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import track

__all__ = ["tracked"]

T = TypeVar("T")


def tracked(things: Iterable[T], what: str, total: int, shown: bool = True) -> Iterator[T]:
    """Go through things with a bar on the error stream, if that is a terminal.

    Example:
        >>> list(tracked([1, 2, 3], "numbers", total=3))
        [1, 2, 3]
    """
    console = Console(stderr=True)
    yield from track(things, what, total, console=console, disable=not (shown and sys.stderr.isatty()))
