"""The report of an image that a command left out."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["BadFile"]


@dataclass(frozen=True)
class BadFile:
    """An image that could not be used, and the reason.

    Attributes:
        image_id: its name in the data set.
        reason: one line.
    """

    image_id: str
    reason: str
