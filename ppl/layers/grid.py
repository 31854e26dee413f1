"""Grids of patches: their notation and their checks."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import TypeAlias

from torch import Tensor

from ppl.errors import PPLTypeError, PPLValueError

__all__ = ["Grid", "as_grid", "check_grid_fits", "check_map"]

Grid: TypeAlias = int | Sequence[int]
"""Rows and columns of patches: `2` is `(2, 2)`."""


def as_grid(grid: Grid) -> tuple[int, int]:
    """Return a grid as `(rows, columns)`.

    Args:
        grid: a positive integer, for equal numbers of rows and columns, or a pair of positive integers.

    Returns:
        `(gh, gw)`.

    Raises:
        PPLTypeError: if `grid` is neither an integer nor a pair of integers.
        PPLValueError: if a number is below 1.

    Example:
        >>> as_grid(2), as_grid((4, 1))
        ((2, 2), (4, 1))
    """
    pair = tuple(grid) if isinstance(grid, (tuple, list)) else (grid, grid)
    if len(pair) != 2 or any(isinstance(number, bool) or not hasattr(number, "__index__") for number in pair):
        raise PPLTypeError(f"grid must be an integer or a pair (rows, columns) of integers, got {grid!r}")
    rows, columns = (operator.index(number) for number in pair)
    if rows < 1 or columns < 1:
        raise PPLValueError(f"grid must have at least one row and one column, got {grid!r}")
    return rows, columns


def check_map(x: Tensor, name: str = "x") -> None:
    """Raise PPLValueError unless `x` is a map (B,C,H,W)."""
    if x.ndim != 4:
        raise PPLValueError(f"{name} must have shape (B,C,H,W), got {tuple(x.shape)}")


def check_grid_fits(grid: tuple[int, int], height: int, width: int) -> None:
    """Raise PPLValueError if the grid has more rows or columns than a map of that size."""
    if grid[0] > height or grid[1] > width:
        raise PPLValueError(
            f"grid {grid[0]}x{grid[1]} is larger than the {height}x{width} map it should cut: "
            "use a smaller grid, a larger input or an earlier cut"
        )
