"""Output of the commands: one line per step and a table at the end."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    from ppl.pipeline import RunResult

__all__ = ["print_line", "show_scores"]


def print_line(line: str) -> None:
    """Print a line of text without markup or line breaks, in the first process of a launch alone."""
    from ppl.parallel import current_share

    if current_share().is_first:
        Console(highlight=False, soft_wrap=True).print(line, markup=False)


def percent(value: float | None) -> str:
    """Return a share in percent with one decimal, or a dash for None and NaN.

    Example:
        >>> percent(0.41251), percent(None)
        ('41.3', '-')
    """
    return "-" if value is None or math.isnan(value) else f"{100 * value:.1f}"


def show_scores(result: RunResult) -> None:
    """Print the scores of a run, its notes, and its pictures and report; in the first process of a launch alone."""
    from ppl.parallel import current_share

    if not current_share().is_first:
        return
    console = Console(highlight=False, soft_wrap=True)
    for split in result.splits:
        rows = [(name, scores[split]) for name, scores in result.scores.items() if split in scores]
        columns = [key for key in rows[0][1] if any(row[1].get(key) is not None for row in rows)] if rows else []
        if not columns:
            continue
        table = Table(
            title=f"{escape(split)}, {result.scored[split]} of {result.splits[split]} images: percent",
            title_justify="left",
            box=box.SIMPLE_HEAD,
            pad_edge=False,
            collapse_padding=True,
        )
        table.add_column("model", no_wrap=True)
        for column in columns:
            longest = max(map(len, column.split()))
            table.add_column(escape(column), justify="right", min_width=longest)  # no word is cut
        for name, scores in rows:
            table.add_row(name, *(percent(scores.get(column)) for column in columns))
        console.print(table)
    for note in result.notes:
        print_line(note)
    if result.image_grid is not None:
        print_line(f"pictures: {result.image_grid}")
    if result.report is not None:
        print_line(f"report:   {result.report}")
