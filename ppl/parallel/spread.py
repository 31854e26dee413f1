"""Choose some of many images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

__all__ = ["spread"]

T = TypeVar("T")


def spread(items: Sequence[T], count: int) -> list[T]:
    """Return items at equal distances over a list, the first and the last among them.

    Of a list that is chosen already, the same call returns all items.

    Args:
        items: images, samples or jobs, in their order.
        count: the most items.

    Example:
        >>> spread("abcdefghi", 3)
        ['a', 'e', 'i']
        >>> spread("ab", 3)
        ['a', 'b']
    """
    return [items[index] for index in np.linspace(0, len(items) - 1, min(count, len(items))).round().astype(int)]
