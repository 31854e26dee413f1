"""Find a split by its name, or by another usual name of it."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from ppl.data.dataset import NoSplitError

__all__ = ["SPLIT_NAMES", "find_split"]

_VALIDATION = ("val", "valid", "validation")
SPLIT_NAMES = ("train", *_VALIDATION, "test")
"""Names of folders that hold a split, as tools export them."""


def find_split(splits: Collection[str], split: str, root: Path) -> str:
    """Return the name that a split has in a data set; "val", "valid" and "validation" mean the same.

    Raises:
        NoSplitError: if there is none.

    Example:
        >>> find_split(["train", "valid"], "val", Path("pets"))
        'valid'
    """
    names: tuple[str, ...] = (split, *_VALIDATION) if split in _VALIDATION else (split,)
    for name in names:
        if name in splits:
            return name
    raise NoSplitError(f"{root} has no split {split!r}; there are: {', '.join(splits) or 'none'}")
