"""Average precision of image tags, per class and as a mean (mAP)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ppl.errors import PPLValueError
from ppl.metrics.inputs import as_numbers

__all__ = ["average_precision", "mean_average_precision"]


def average_precision(scores: Any, targets: Any) -> Tensor:
    """Compute the average precision of each class: the area under the precision-recall steps, as in scikit-learn.

    Only the order of the scores matters, so logits and probabilities give the same result.

    Args:
        scores: (N, K) real numbers, NumPy array or torch tensor.
        targets: (N, K) zeros and ones.

    Returns:
        (K,) float64 on the CPU; NaN for a class without a positive image.

    Raises:
        PPLValueError: if the shapes differ, a score is NaN or a target is neither 0 nor 1.
        PPLTypeError: if the scores or the targets are not real numbers.

    Example:
        >>> average_precision([[0.9, 1.0], [0.8, 0.0], [0.1, 3.0]], [[1, 0], [0, 0], [1, 0]])
        tensor([0.8333,    nan], dtype=torch.float64)
    """
    from torchmetrics.functional.classification import binary_average_precision

    values, truth = as_numbers(scores, "scores").cpu(), as_numbers(targets, "targets").cpu()
    if values.ndim != 2 or values.shape != truth.shape:
        raise PPLValueError(f"scores {tuple(values.shape)} and targets {tuple(truth.shape)} must both be (N, K)")
    if values.isnan().any():
        row, column = values.isnan().nonzero()[0].tolist()
        raise PPLValueError(f"the score of class {column} in row {row} is NaN: check the model's weights and its input")
    if not ((truth == 0) | (truth == 1)).all():
        raise PPLValueError("targets must be zeros and ones: apply a threshold to soft labels")
    result = torch.full((values.shape[1],), torch.nan, dtype=torch.float64)
    # Ranks in 0..1, since torchmetrics applies a sigmoid to logits, which makes large logits equal.
    ranks = torch.unique(values, return_inverse=True)[1].double() / max(1, values.numel())
    for column in truth.any(0).nonzero().flatten().tolist():
        result[column] = binary_average_precision(ranks[:, column], truth[:, column].long())
    return result


def mean_average_precision(scores: Any, targets: Any) -> float:
    """Compute the mean of `average_precision` over the classes that have a positive image; NaN if no class has one.

    Args:
        scores: (N, K) real numbers, NumPy array or torch tensor.
        targets: (N, K) zeros and ones.

    Raises:
        PPLValueError: as `average_precision`.
        PPLTypeError: as `average_precision`.

    Example:
        >>> mean_average_precision([[0.9, 1.0], [0.8, 0.0]], [[1, 0], [0, 0]])
        1.0
    """
    return average_precision(scores, targets).nanmean().item()
