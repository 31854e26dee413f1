"""Coverage of the parts of objects by masks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from ppl.errors import PPLValueError
from ppl.metrics.inputs import class_indices, same_shape

__all__ = ["PartCoverage", "coverage"]

_MOST_PARTS = 254  # values 1 to 254 of an 8-bit mask


class PartCoverage:
    """The share of the pixels of every part that got the right class, over a whole data set.

    A plain class activation map covers the part that tells the classes apart, such as the head, and leaves out the
    rest, such as the body. The coverage shows which part is missing; mean IoU does not.

    Args:
        parts: names of part 1, 2, ... in the part masks; None: "part 1", "part 2", ... for the parts that occur.
        ignore_index: target value that is not scored.

    Raises:
        PPLValueError: if the list of names is empty.

    Example:
        >>> covered = PartCoverage(("head", "body"))
        >>> covered.update([[0, 3, 3, 3]], [[3, 3, 0, 3]], [[0, 1, 2, 2]])
        >>> covered.compute()
        {'head': 1.0, 'body': 0.5}
    """

    def __init__(self, parts: Sequence[str] | None, ignore_index: int = 255) -> None:
        if parts is not None and not parts:
            raise PPLValueError("the list of parts is empty: give the names of part 1, 2, ..., or None")
        self.parts, self.ignore_index = parts if parts is None else tuple(parts), ignore_index
        self.counts = torch.zeros(_MOST_PARTS if self.parts is None else len(self.parts), 2, dtype=torch.int64)
        """(P, 2) int64: number of covered pixels of each part, and number of its pixels."""

    def update(self, target: Any, prediction: Any, part_mask: Any) -> None:
        """Count the pixels of one image or batch.

        Args:
            target: class indices of any shape, 0 for the background.
            prediction: class indices of the same shape.
            part_mask: 0 for no part, 1, 2, ... for the parts, of the same shape.

        Raises:
            PPLValueError: if the shapes differ or a part has no name.
            PPLTypeError: if the values are not integers.
        """
        truth = class_indices(target, "target", 256, self.ignore_index)
        guess = class_indices(prediction, "prediction", 256, self.ignore_index).to(truth.device)
        parts = class_indices(part_mask, "part_mask", len(self.counts) + 1, self.ignore_index).to(truth.device)
        same_shape(truth, guess, "prediction")
        same_shape(truth, parts, "part_mask")
        # Pixels of a part that are background in the target have no class that could cover them.
        scored = (truth != self.ignore_index) & (truth != 0) & (parts != 0) & (parts != self.ignore_index)
        part, hit = parts[scored] - 1, guess[scored] == truth[scored]
        total = torch.bincount(part, minlength=len(self.counts))
        hits = torch.bincount(part[hit], minlength=len(self.counts))
        self.counts = self.counts.to(total.device) + torch.stack([hits, total], 1)

    def merge(self, other: PartCoverage) -> None:
        """Add the counts of another `PartCoverage`, such as that of another process.

        Raises:
            PPLValueError: if its parts differ.
        """
        if self.parts != other.parts:
            raise PPLValueError(f"cannot merge parts {other.parts} into {self.parts}; they must be the same")
        self.counts = self.counts + other.counts.to(self.counts.device)

    def compute(self) -> dict[str, float]:
        """Return the share in 0..1 by part; NaN for a named part that never occurred."""
        hits, total = self.counts.cpu().double().unbind(1)
        shares = (hits / total).tolist()
        if self.parts is not None:
            return dict(zip(self.parts, shares, strict=True))
        return {f"part {index + 1}": shares[index] for index in total.nonzero().flatten().tolist()}


def coverage(target: Any, prediction: Any, part_mask: Any, parts: Sequence[str] | None = None) -> dict[str, float]:
    """Return the share of the pixels of every part that got the right class, in one image or batch.

    Args:
        target: class indices of any shape, 0 for the background.
        prediction: class indices of the same shape.
        part_mask: 0 for no part, 1, 2, ... for the parts, of the same shape.
        parts: names of part 1, 2, ...; None: "part 1", "part 2", ... for the parts that occur.

    Returns:
        The share in 0..1 by part; NaN for a named part that does not occur.

    Raises:
        PPLValueError: if the shapes differ or a part has no name.
        PPLTypeError: if the values are not integers.

    Example:
        >>> coverage([1, 1, 1, 0], [1, 1, 0, 0], [1, 2, 2, 0], ("head", "body"))
        {'head': 1.0, 'body': 0.5}
    """
    counted = PartCoverage(parts)
    counted.update(target, prediction, part_mask)
    return counted.compute()
