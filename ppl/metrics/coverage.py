"""How much of each part of the objects a mask covers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from ppl.errors import PPLValueError
from ppl.metrics.inputs import class_indices, same_shape

__all__ = ["PartCoverage", "coverage"]


class PartCoverage:
    """Share of every part's pixels that got the right class, over a whole data set.

    A plain class activation map covers the part that tells the classes apart and leaves the rest: high on the head, low
    on the body. Mean IoU shows the sum of the two, this shows which is missing.

    Args:
        parts: names of the parts 1, 2, ... in the part masks.
        ignore_index: target value that is not scored.

    Raises:
        PPLValueError: if no part is named.

    Example:
        >>> covered = PartCoverage(("head", "body"))
        >>> covered.update([[0, 3, 3, 3]], [[3, 3, 0, 3]], [[0, 1, 2, 2]])
        >>> covered.compute()
        {'head': 1.0, 'body': 0.5}
    """

    def __init__(self, parts: Sequence[str], ignore_index: int = 255) -> None:
        if not parts:
            raise PPLValueError("no part is named; give the names of the parts 1, 2, ... of the part masks")
        self.parts, self.ignore_index = tuple(parts), ignore_index
        self.counts = torch.zeros(len(self.parts), 2, dtype=torch.int64)
        """(P, 2) int64: pixels of each part that are covered, and all of them."""

    def update(self, target: Any, prediction: Any, part_mask: Any) -> None:
        """Count the pixels of one image or batch.

        Args:
            target: class indices of any shape, 0 background.
            prediction: class indices of the same shape.
            part_mask: 0 none, 1.. the parts, of the same shape.

        Raises:
            PPLValueError: if the shapes differ or a part is unknown.
            PPLTypeError: if the values are not integers.
        """
        truth = class_indices(target, "target", 256, self.ignore_index)
        guess = class_indices(prediction, "prediction", 256, self.ignore_index).to(truth.device)
        parts = class_indices(part_mask, "part_mask", len(self.parts) + 1, self.ignore_index).to(truth.device)
        same_shape(truth, guess, "prediction")
        same_shape(truth, parts, "part_mask")
        # a part without a class in the target (0) cannot be covered rightly or wrongly
        scored = (truth != self.ignore_index) & (truth != 0) & (parts != 0) & (parts != self.ignore_index)
        part, hit = parts[scored] - 1, guess[scored] == truth[scored]
        total = torch.bincount(part, minlength=len(self.parts))
        hits = torch.bincount(part[hit], minlength=len(self.parts))
        self.counts = self.counts.to(total.device) + torch.stack([hits, total], 1)

    def merge(self, other: PartCoverage) -> None:
        """Add the counts of another one, e.g. from another process.

        Raises:
            PPLValueError: if its parts differ.
        """
        if self.parts != other.parts:
            raise PPLValueError(f"cannot merge parts {other.parts} into {self.parts}; they must be the same")
        self.counts = self.counts + other.counts.to(self.counts.device)

    def compute(self) -> dict[str, float]:
        """Share per part in 0..1; NaN for a part that was never there."""
        hits, total = self.counts.cpu().double().unbind(1)
        return dict(zip(self.parts, (hits / total).tolist(), strict=True))


def coverage(target: Any, prediction: Any, part_mask: Any, parts: Sequence[str]) -> dict[str, float]:
    """The share of every part's pixels that got the right class, in one image or batch.

    Args:
        target: class indices of any shape, 0 background.
        prediction: class indices of the same shape.
        part_mask: 0 none, 1.. the parts, of the same shape.
        parts: names of the parts 1, 2, ...

    Returns:
        Share per part in 0..1; NaN for a part that is not there.

    Raises:
        PPLValueError: if the shapes differ or a part is unknown.
        PPLTypeError: if the values are not integers.

    Example:
        >>> coverage([1, 1, 1, 0], [1, 1, 0, 0], [1, 2, 2, 0], ("head", "body"))
        {'head': 1.0, 'body': 0.5}
    """
    counted = PartCoverage(parts)
    counted.update(target, prediction, part_mask)
    return counted.compute()
