"""What the commands print: one line a step, one table at the end."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from ppl.pipeline import RunResult

__all__ = ["say", "show_scores"]


def say(line: str) -> None:
    """Print a line as it stands."""
    Console(highlight=False, soft_wrap=True).print(line, markup=False)


def percent(value: float | None) -> str:
    """A share as the field writes it: `41.3`, or a dash where there is none.

    Example:
        >>> percent(0.41251), percent(None)
        ('41.3', '-')
    """
    return "-" if value is None or math.isnan(value) else f"{100 * value:.1f}"


def show_scores(result: RunResult) -> None:
    """The table of a run, then where its pictures and its report lie."""
    console = Console(highlight=False, soft_wrap=True)
    for split in result.splits:
        rows = [(name, scores[split]) for name, scores in result.scores.items() if split in scores]
        columns = [key for key in rows[0][1] if any(row[1].get(key) is not None for row in rows)] if rows else []
        if not columns:
            continue
        table = Table(
            title=f"{split}: percent", title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True
        )
        table.add_column("model", no_wrap=True)
        for column in columns:
            table.add_column(column, justify="right")
        for name, scores in rows:
            table.add_row(name, *(percent(scores.get(column)) for column in columns))
        console.print(table)
    for note in result.notes:
        say(note)
    if result.image_grid is not None:
        say(f"pictures: {result.image_grid}")
    if result.report is not None:
        say(f"report:   {result.report}")
