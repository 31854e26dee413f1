"""Which classes each image gets maps of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ppl.errors import PPLTypeError, PPLValueError

__all__ = ["check_labels", "predicted_labels"]


def check_labels(labels: Any, num_classes: int) -> list[Tensor]:
    """Spell the classes of every image as ascending class indices.

    Args:
        labels: per image a list (tensor, array, ...) of class indices from 0, without order; or one 0/1 tensor or
            array (B,K) for all images. An image may have none.
        num_classes: K.

    Returns:
        Per image an int64 tensor (k,), ascending, without repetitions.

    Raises:
        PPLTypeError: if it is neither.
        PPLValueError: if an index is not in 0..K-1, a list of indices looks like a 0/1 row, or the (B,K) tensor has
            another K or values besides 0 and 1.

    Example:
        >>> check_labels([[3, 1], []], num_classes=5)
        [tensor([1, 3]), tensor([], dtype=torch.int64)]
        >>> check_labels(torch.tensor([[0, 1, 1]]), num_classes=3)
        [tensor([1, 2])]
    """
    if isinstance(labels, np.ndarray) and labels.dtype.kind not in "biuf":
        labels = labels.tolist()  # rows of several lengths
    if isinstance(labels, (Tensor, np.ndarray)):
        return _from_multi_hot(torch.as_tensor(labels), num_classes)
    if isinstance(labels, (str, bytes)) or not isinstance(labels, Sequence):
        raise PPLTypeError(
            f"labels must be a list with one list of class indices per image or a 0/1 tensor (B,K), got {labels!r}"
        )
    return [_from_indices(row, number, num_classes) for number, row in enumerate(labels)]


def predicted_labels(logits: Tensor) -> list[Tensor]:
    """The classes that a model predicts: those of probability (sigmoid) above 0.5, or the best one if there is none.

    Args:
        logits: (B,K).

    Returns:
        Per image an int64 tensor (k,), ascending, on the device of the logits.

    Example:
        >>> predicted_labels(torch.tensor([[1.0, -1.0, 2.0], [-3.0, -1.0, -2.0]]))
        [tensor([0, 2]), tensor([1])]
    """
    present = logits > 0  # where sigmoid is above 0.5, but for the rounding of half precision
    best = torch.zeros_like(present).scatter_(1, logits.argmax(dim=1, keepdim=True), True)
    present = torch.where(present.any(dim=1, keepdim=True), present, best)
    return [row.nonzero()[:, 0] for row in present]


def _from_multi_hot(labels: Tensor, num_classes: int) -> list[Tensor]:
    if labels.ndim != 2 or labels.shape[1] != num_classes:
        raise PPLValueError(
            f"a label tensor must have shape (B,{num_classes}), one column per class of the model, "
            f"got {tuple(labels.shape)}: for class indices pass a list of lists"
        )
    if not ((labels == 0) | (labels == 1)).all():
        raise PPLValueError("a label tensor (B,K) must hold 0 and 1 only: for class indices pass a list of lists")
    return [row.nonzero()[:, 0].cpu() for row in labels]


def _from_indices(row: Any, number: int, num_classes: int) -> Tensor:
    values = row.tolist() if isinstance(row, (Tensor, np.ndarray)) else row
    if isinstance(values, (str, bytes)) or not hasattr(values, "__iter__"):
        raise PPLTypeError(f"labels[{number}] must be a list of class indices, got {row!r}: write [{row!r}]")
    values = list(values)
    for value in values:
        if isinstance(value, bool) or not hasattr(value, "__index__"):
            raise PPLTypeError(f"labels[{number}] must hold integers, got {value!r}")
        if not 0 <= value < num_classes:
            raise PPLValueError(
                f"labels[{number}] holds class {value}, but the model's classes are 0..{num_classes - 1}"
            )
    if len(values) == num_classes and len(set(values)) < num_classes:
        raise PPLValueError(
            f"labels[{number}] has one value for each of the {num_classes} classes and repeats some, as a 0/1 row does:"
            " pass all rows as one tensor (torch.stack(labels)), or class indices"
        )
    return torch.tensor(sorted({int(value) for value in values}), dtype=torch.int64)
