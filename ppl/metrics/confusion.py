"""The confusion matrix of a data set and its scores: IoU, precision, recall, Dice."""

from __future__ import annotations

from typing import Any, TypedDict

import torch
from torch import Tensor

from ppl.errors import PPLValueError
from ppl.metrics.inputs import check_ignored, class_indices, same_shape

__all__ = ["ConfusionMatrix", "Scores", "scores_of"]


class Scores(TypedDict):
    """Scores in 0..1, float64. A score that is not defined for a class is NaN and left out of the means.

    Attributes:
        miou: mean of `iou` over the classes that occur in the target or in the prediction.
        iou: (C,) intersection over union.
        precision: (C,) TP / (TP + FP), NaN for a class that is never predicted.
        recall: (C,) TP / (TP + FN), NaN for a class that is not in the target.
        dice: (C,) 2 TP / (2 TP + FP + FN).
        mean_precision: mean of `precision`.
        mean_recall: mean of `recall`, also called mean accuracy.
        accuracy: share of pixels whose class is right.
    """

    miou: float
    iou: Tensor
    precision: Tensor
    recall: Tensor
    dice: Tensor
    mean_precision: float
    mean_recall: float
    accuracy: float


class ConfusionMatrix:
    """Pixel counts over a whole data set, from which the scores of masks are computed as in Pascal VOC.

    Counts are summed over all images before any division. Pixels whose target is `ignore_index` do not count. A pixel
    that is *predicted* as `ignore_index` counts as a false negative of its target's class and as a false positive of no
    class. Leaving such pixels out, as some evaluations do, would reward a method for not predicting.

    Args:
        num_classes: number of classes C, including the background.
        ignore_index: target value that is not scored.

    Raises:
        PPLValueError: if `num_classes` is below 1 or `ignore_index` is a class.

    Example:
        >>> confusion = ConfusionMatrix(3)
        >>> confusion.update([[0, 0, 1], [1, 255, 0]], [[0, 1, 1], [1, 0, 0]])
        >>> confusion.compute()["iou"].tolist()
        [0.6666666666666666, 0.6666666666666666, nan]
    """

    def __init__(self, num_classes: int, ignore_index: int = 255) -> None:
        if num_classes < 1:
            raise PPLValueError(f"num_classes is {num_classes}; it counts the background and is at least 1")
        check_ignored(ignore_index, num_classes)
        self.num_classes, self.ignore_index = num_classes, ignore_index
        self.counts = torch.zeros(num_classes, num_classes + 1, dtype=torch.int64)
        """(C, C+1) int64: rows are the target, columns the prediction, the last column is for `ignore_index`."""

    def update(self, target: Any, prediction: Any) -> None:
        """Count the pixels of one image or batch.

        Args:
            target: integers of any shape, NumPy array or torch tensor.
            prediction: integers of the same shape.

        Raises:
            PPLValueError: if the shapes differ or a value is not a class.
            PPLTypeError: if the values are not integers.
        """
        truth = class_indices(target, "target", self.num_classes, self.ignore_index)
        guess = class_indices(prediction, "prediction", self.num_classes, self.ignore_index).to(truth.device)
        same_shape(truth, guess, "prediction")
        scored = truth != self.ignore_index
        truth, guess = truth[scored], guess[scored]
        columns = self.num_classes + 1
        guess = torch.where(guess == self.ignore_index, self.num_classes, guess)
        counts = torch.bincount(truth * columns + guess, minlength=self.counts.numel()).view_as(self.counts)
        self.counts = self.counts.to(counts.device) + counts

    def merge(self, other: ConfusionMatrix) -> None:
        """Add the counts of another matrix, such as that of another process.

        Raises:
            PPLValueError: if its classes or its ignore index differ.
        """
        if (self.num_classes, self.ignore_index) != (other.num_classes, other.ignore_index):
            mine, theirs = (self.num_classes, self.ignore_index), (other.num_classes, other.ignore_index)
            raise PPLValueError(f"cannot merge (num_classes, ignore_index) {theirs} into {mine}; they must be the same")
        self.counts = self.counts + other.counts.to(self.counts.device)

    def reset(self) -> None:
        """Set all counts to 0."""
        self.counts = torch.zeros_like(self.counts)

    def compute(self) -> Scores:
        """Return the scores of all pixels counted so far, on the CPU; NaN if there are none."""
        return scores_of(self.counts)


def scores_of(counts: Tensor) -> Scores:
    """Compute the scores of a confusion matrix.

    Args:
        counts: (C, C) or (C, C+1) integers. Rows are the target, columns the prediction. A further column holds the
            pixels for which no class was predicted.

    Returns:
        The scores.

    Raises:
        PPLValueError: if the counts have another shape.

    Example:
        >>> scores_of(torch.tensor([[3, 1], [0, 4]]))["miou"]
        0.775
    """
    if counts.ndim != 2 or counts.shape[1] - counts.shape[0] not in (0, 1):
        raise PPLValueError(f"counts have shape {tuple(counts.shape)}; expected (C, C) or (C, C+1)")
    counts = counts.cpu().double()  # MPS has no float64
    hits = counts.diagonal()
    in_target = counts.sum(1)
    predicted = counts.sum(0)[: len(hits)]
    iou = hits / (in_target + predicted - hits)  # 0 / 0 is NaN: the class occurs nowhere
    precision, recall = hits / predicted, hits / in_target
    return {
        "miou": iou.nanmean().item(),
        "iou": iou,
        "precision": precision,
        "recall": recall,
        "dice": 2 * hits / (in_target + predicted),
        "mean_precision": precision.nanmean().item(),
        "mean_recall": recall.nanmean().item(),
        "accuracy": (hits.sum() / counts.sum()).item(),
    }
