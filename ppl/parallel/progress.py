"""The progress bar: on a terminal, and only there."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Protocol, TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from ppl.parallel.share import current_share

__all__ = ["Advance", "progress_bar", "tracked"]

T = TypeVar("T")


class Advance(Protocol):
    """The function that moves a progress bar."""

    def __call__(self, count: int = 1, description: str | None = None) -> None:
        """Add `count` finished items; `description` replaces the text in front of the bar."""


class _Speed(ProgressColumn):
    def __init__(self, unit: str) -> None:
        super().__init__()
        self.unit = unit

    def render(self, task: Task) -> Text:
        speed = f"{task.speed:.1f}" if task.speed else "-"
        return Text(f"{speed} {self.unit}/s", style="progress.data.speed")


@contextmanager
def progress_bar(
    description: str, total: int, *, completed: int = 0, unit: str = "images", show: bool = True
) -> Iterator[Advance]:
    """Show a bar on standard error with the count, the speed and the time left, if standard error is a terminal.

    Of the processes of a launch the first alone shows it.

    Args:
        description: the text in front of the bar.
        total: the number of items.
        completed: the number of items that earlier runs finished.
        unit: the name of the items, in the plural.
        show: False for no bar anywhere.

    Yields:
        The function that moves the bar.

    Example:
        >>> with progress_bar("maps", total=2) as advance:
        ...     advance()
        ...     advance(1, "last map")
    """
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), _Speed(unit), TimeRemainingColumn())
    shown = show and console.is_terminal and current_share().is_first
    with Progress(*columns, console=console, disable=not shown) as bar:
        task = bar.add_task(description, total=total, completed=completed)

        def advance(count: int = 1, description: str | None = None) -> None:
            bar.update(task, advance=count, description=description)

        yield advance


def tracked(
    items: Iterable[T], description: str, total: int, *, unit: str = "images", show: bool = True
) -> Iterator[T]:
    """Yield the items and move a `progress_bar` after each of them.

    Example:
        >>> list(tracked([1, 2, 3], "numbers", total=3))
        [1, 2, 3]
    """
    with progress_bar(description, total, unit=unit, show=show) as advance:
        for item in items:
            yield item
            advance()
