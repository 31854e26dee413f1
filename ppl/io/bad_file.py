"""What is told of a file that a run left out."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["BadFile"]


@dataclass(frozen=True)
class BadFile:
    """An image that could not be used, and why.

    Attributes:
        image_id: its name in the data set.
        reason: one line.
    """

    image_id: str
    reason: str
