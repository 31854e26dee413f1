"""Scores of class maps at many background thresholds, from one pass over the pixels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ppl.errors import PPLValueError
from ppl.metrics.confusion import Scores, scores_of
from ppl.metrics.inputs import as_numbers, check_ignored, class_indices

__all__ = ["ThresholdSweep"]

_LARGEST = 1.01  # resizing and half precision may leave [0, 1] by one hundredth


class ThresholdSweep:
    """Count class maps at every background threshold in one pass over the pixels.

    At threshold *t* a pixel gets the class with the largest value if that value is above *t*, else background. The
    class of the largest value does not depend on *t*, so a histogram over (target, largest class, value) holds the
    confusion matrices of all thresholds.

    A threshold that was chosen with masks is supervised: report the images on which it was chosen.

    Args:
        num_classes: number of classes C, the background counted.
        thresholds: rising finite numbers; None: 0.00, 0.01, ..., 0.99.
        ignore_index: target value that is not scored.

    Raises:
        PPLValueError: if the thresholds do not rise, `num_classes` is below 2, or `ignore_index` is one of the classes.

    Example:
        >>> sweep = ThresholdSweep(3, [0.1, 0.5])
        >>> sweep.update([[0, 1, 2]], [[[0.3, 0.9, 0.2]], [[0.1, 0.4, 0.8]]], [0, 1])
        >>> sweep.miou().tolist()
        [0.5, 1.0]
        >>> sweep.best()
        0.5
    """

    def __init__(self, num_classes: int, thresholds: Sequence[float] | None = None, ignore_index: int = 255) -> None:
        if num_classes < 2:
            raise PPLValueError(f"num_classes is {num_classes}; it counts the background and is at least 2")
        check_ignored(ignore_index, num_classes)
        values = [i / 100 for i in range(100)] if thresholds is None else [float(t) for t in thresholds]
        self.thresholds = torch.tensor(values, dtype=torch.float32)
        self._given = values  # the thresholds of the caller, since float32 cannot hold 0.1
        if not values or not bool(self.thresholds.isfinite().all() & (self.thresholds.diff() > 0).all()):
            raise PPLValueError(f"thresholds {values[:5]}... must be one or more rising finite numbers")
        self.num_classes, self.ignore_index = num_classes, ignore_index
        self.counts = torch.zeros(num_classes, num_classes - 1, len(values) + 1, dtype=torch.int64)
        """(C, C-1, T+1) int64 pixels by target, largest class and number of thresholds below its value."""

    def update(self, target: Any, maps: Any, classes: Any) -> None:
        """Count the pixels of one image.

        Args:
            target: (H, W) class indices, 0 background.
            maps: (k, H, W) in [0, 1], one map per class of the image.
            classes: (k,) class index 0..K-1 of each map; class *c* is *c*+1 in the target.

        Raises:
            PPLValueError: if the shapes do not match, or a value is NaN or above 1.
            PPLTypeError: if the target or the classes are not integers, or the maps are not numbers.
        """
        truth = class_indices(target, "target", self.num_classes, self.ignore_index)
        values = as_numbers(maps, "maps").to(truth.device).float()
        given = as_numbers(classes, "classes")
        given = given if given.numel() else given.long()  # an empty list becomes a tensor of floats
        names = class_indices(given, "classes", self.num_classes - 1, None).to(truth.device).reshape(-1)
        if values.shape != (len(names), *truth.shape):
            shapes = f"maps {tuple(values.shape)}, classes {tuple(names.shape)}, target {tuple(truth.shape)}"
            raise PPLValueError(f"{shapes} do not fit; expected (k, H, W), (k,) and (H, W)")
        if bool(values.isnan().any()):
            raise PPLValueError("a map holds NaN: check the model's weights and the image")
        if values.numel() and float(values.max()) > _LARGEST:
            raise PPLValueError(
                f"a map holds {float(values.max()):.3g}: divide maps by their maximum, or 8-bit maps by 255"
            )
        scored = truth != self.ignore_index
        truth = truth[scored]
        if len(names):
            best, which = values[:, scored].max(0)
            label, level = names[which], torch.bucketize(best, self.thresholds.to(best.device))
        else:  # an image without a class is background at every threshold
            label = level = torch.zeros_like(truth)
        _, width, levels = self.counts.shape
        counts = torch.bincount((truth * width + label) * levels + level, minlength=self.counts.numel())
        self.counts = self.counts.to(counts.device) + counts.view_as(self.counts)

    def merge(self, other: ThresholdSweep) -> None:
        """Add the counts of another sweep, such as that of another process.

        Raises:
            PPLValueError: if its classes, thresholds or ignore index differ.
        """
        same = self.counts.shape == other.counts.shape and torch.equal(self.thresholds, other.thresholds)
        if not same or self.ignore_index != other.ignore_index:
            raise PPLValueError("cannot merge sweeps of different classes, thresholds or ignore index")
        self.counts = self.counts + other.counts.to(self.counts.device)

    def confusions(self) -> Tensor:
        """Return the confusion matrix of every threshold, (T, C, C) int64 on the CPU; rows are the target."""
        counts = self.counts.cpu()
        # A pixel is foreground at threshold j if more than j thresholds lie below its value.
        foreground = counts[..., 1:].flip(-1).cumsum(-1).flip(-1)
        background = counts.sum((1, 2))[:, None] - foreground.sum(1)
        return torch.cat([background[:, None], foreground], 1).permute(2, 0, 1)

    def miou(self) -> Tensor:
        """Return the mean IoU at every threshold, (T,) float64."""
        return torch.tensor([scores_of(matrix)["miou"] for matrix in self.confusions()], dtype=torch.float64)

    def best(self) -> float:
        """Return the threshold of the highest mean IoU, the lowest one if several tie.

        Raises:
            PPLValueError: if nothing has been counted.
        """
        miou = self.miou()
        if bool(miou.isnan().all()):
            raise PPLValueError("the sweep has seen no scored pixel; call update with images that have masks")
        return self._given[int(miou.nan_to_num(-1).argmax())]

    def scores(self, threshold: float | None = None) -> Scores:
        """Return all scores at one of the thresholds, or at the best one.

        Raises:
            PPLValueError: if `threshold` is not among those swept; the message holds the nearest.
        """
        wanted = self.best() if threshold is None else threshold
        index = int((self.thresholds - wanted).abs().argmin())
        nearest = self.thresholds[index].item()
        if abs(nearest - wanted) > 1e-6:
            raise PPLValueError(f"threshold {wanted:g} was not swept; the nearest one is {nearest:g}")
        return scores_of(self.confusions()[index])
