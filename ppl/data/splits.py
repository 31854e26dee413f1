"""Find a split by its name, or by another usual name of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

from ppl.data.dataset import NoSplitError

__all__ = ["SPLIT_NAMES", "find_split"]

_VALIDATION = ("val", "valid", "validation")
SPLIT_NAMES = ("train", *_VALIDATION, "test")
"""Names of folders that hold a split, as tools export them."""

T = TypeVar("T")


def find_split(splits: Mapping[str, T], split: str, root: Path) -> T:
    """Return the entry of a split; "val", "valid" and "validation" mean the same.

    Raises:
        NoSplitError: if there is none.

    Example:
        >>> find_split({"train": 1, "valid": 2}, "val", Path("pets"))
        2
    """
    for name in (split, *(_VALIDATION if split in _VALIDATION else ())):
        if name in splits:
            return splits[name]
    raise NoSplitError(f"{root} has no split {split!r}; there are: {', '.join(splits) or 'none'}")
