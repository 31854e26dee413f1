"""The report of an image that a command left out."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ppl.parallel.share import current_share

__all__ = ["BadFile", "gather_bad"]


@dataclass(frozen=True)
class BadFile:
    """An image that could not be used, and the reason.

    Attributes:
        image_id: its name in the data set.
        reason: one line.
    """

    image_id: str
    reason: str


def gather_bad(files: Iterable[BadFile]) -> list[BadFile]:
    """Return the reports of all processes of a launch; every process makes the call, see `Share.gather`."""
    shares = current_share().gather([(file.image_id, file.reason) for file in files])
    return [BadFile(image_id, reason) for share in shares for image_id, reason in share]
