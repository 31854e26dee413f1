"""Which classes each image gets maps of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ppl.errors import PPLTypeError, PPLValueError, nearest

__all__ = ["check_labels", "predicted_labels"]


def check_labels(labels: Any, num_classes: int, classes: Sequence[str] | None = None) -> list[Tensor]:
    """Return the classes of every image as ascending class indices.

    Args:
        labels: per image a list (tuple, tensor, array) of class indices from 0, in any order, or of class names, or one
            string of names with ";" between them; an array (B,k) of indices; or one 0/1 tensor or array (B,K) for all
            images. An image may have no class.
        num_classes: K.
        classes: names of the classes, if they are known.

    Returns:
        Per image an int64 tensor (k,), ascending, without repetitions.

    Raises:
        PPLTypeError: if labels are none of these, or names are given to a model that knows no names.
        PPLValueError: if an index is not in 0..K-1, a name is unknown, the (B,K) tensor has another K or values besides
            0 and 1, or rows of indices may as well be rows of zeros and ones: K values each, not ascending.

    Example:
        >>> check_labels([[3, 1], []], num_classes=5)
        [tensor([1, 3]), tensor([], dtype=torch.int64)]
        >>> check_labels(torch.tensor([[0, 1, 1]]), num_classes=3)
        [tensor([1, 2])]
        >>> check_labels(["cat;cow", ["cow"]], num_classes=2, classes=["cat", "cow"])
        [tensor([0, 1]), tensor([1])]
    """
    if isinstance(labels, np.ndarray) and labels.dtype.kind not in "biuf":
        labels = labels.tolist()  # names, or rows of several lengths
    if isinstance(labels, (Tensor, np.ndarray)):
        table = torch.as_tensor(labels)
        if not _holds_indices(table, num_classes):
            return _from_multi_hot(table, num_classes)
        labels = table.tolist()
    if isinstance(labels, (str, bytes)) or not isinstance(labels, Sequence):
        raise PPLTypeError(
            f"labels must be a list with one list of class indices per image or a 0/1 tensor (B,K), got {labels!r}"
        )
    return [_from_row(row, number, num_classes, classes) for number, row in enumerate(labels)]


def predicted_labels(logits: Tensor, *, multi_label: bool = True) -> list[Tensor]:
    """Return the classes that a model predicts.

    Args:
        logits: (B,K).
        multi_label: take the classes of probability (sigmoid) above 0.5, or the best one if there is none; False takes
            the best one.

    Returns:
        Per image an int64 tensor (k,), ascending, on the device of the logits.

    Example:
        >>> logits = torch.tensor([[1.0, -1.0, 2.0], [-3.0, -1.0, -2.0]])
        >>> predicted_labels(logits), predicted_labels(logits, multi_label=False)
        ([tensor([0, 2]), tensor([1])], [tensor([2]), tensor([1])])
    """
    best = logits.argmax(dim=1, keepdim=True)
    if not multi_label:
        return list(best)
    present = logits > 0  # where sigmoid is above 0.5, but for the rounding of half precision
    best = torch.zeros_like(present).scatter_(1, best, True)
    present = torch.where(present.any(dim=1, keepdim=True), present, best)
    return [row.nonzero()[:, 0] for row in present]


def _holds_indices(table: Tensor, num_classes: int) -> bool:
    """Tell whether an array (B,k) can hold class indices alone: whole numbers, k is not K, some above 1."""
    whole = not table.is_floating_point() and table.dtype != torch.bool
    return whole and table.ndim == 2 and table.shape[1] != num_classes and bool((table > 1).any())


def _from_multi_hot(labels: Tensor, num_classes: int) -> list[Tensor]:
    if labels.ndim == 1:
        raise PPLValueError(
            f"labels of shape {tuple(labels.shape)} may be one class for each image, or one row: pass a list with one "
            "list of class indices per image, [[index] for index in labels]"
        )
    if labels.ndim != 2 or labels.shape[1] != num_classes:
        raise PPLValueError(
            f"a label tensor must have shape (B,{num_classes}), one column per class of the model, "
            f"got {tuple(labels.shape)}: for class indices pass a list of lists"
        )
    if not ((labels == 0) | (labels == 1)).all():
        raise PPLValueError("a label tensor (B,K) must hold 0 and 1 only: for class indices pass a list of lists")
    return [row.nonzero()[:, 0].cpu() for row in labels]


def _from_row(row: Any, number: int, num_classes: int, classes: Sequence[str] | None) -> Tensor:
    values = row.tolist() if isinstance(row, (Tensor, np.ndarray)) else row
    if isinstance(values, str) and classes is not None:
        values = [name.strip() for name in values.split(";") if name.strip()]
    if values is None:
        raise PPLTypeError(f"labels[{number}] is None: write [] for an image without classes")
    if isinstance(values, (str, bytes)) or not hasattr(values, "__iter__"):
        raise PPLTypeError(
            f"labels[{number}] must be a list of class indices, got {row!r}: write [{row!r}]"
            + (", with an index, since the model does not name its classes" if isinstance(values, str) else "")
        )
    values = list(values)
    if len(values) == num_classes and all(isinstance(value, (bool, np.bool_)) for value in values):
        raise PPLTypeError(
            f"labels[{number}] is a row of a 0/1 table: pass all rows as one tensor, torch.tensor(labels)"
        )
    indices = [_index(value, number, num_classes, classes) for value in values]
    if len(values) == num_classes and not any(isinstance(value, str) for value in values):
        _refuse_zeros_and_ones(row, indices, number)
    return torch.tensor(sorted(set(indices)), dtype=torch.int64)


def _refuse_zeros_and_ones(row: Any, indices: list[int], number: int) -> None:
    """Raise PPLValueError if K indices may be meant as a row of K zeros and ones."""
    if len(set(indices)) < len(indices):
        raise PPLValueError(
            f"labels[{number}] has one value for each of the {len(indices)} classes and repeats some, as a 0/1 row "
            "does: pass all rows as one tensor (torch.stack(labels)), or class indices"
        )
    if indices == [1, 0]:
        raise PPLValueError(
            f"labels[{number}] is {row!r}, two class indices or a 0/1 row of two classes: pass 0/1 rows as one tensor "
            "(torch.tensor(labels)), and class indices in ascending order"
        )


def _index(value: Any, number: int, num_classes: int, classes: Sequence[str] | None) -> int:
    if isinstance(value, str) and classes is not None:
        if value not in classes:
            raise PPLValueError(
                f"labels[{number}] holds class {value!r}, which the model lacks{nearest(value, classes)}"
            )
        return list(classes).index(value)
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        known = "" if not isinstance(value, str) else ": the model does not name its classes"
        raise PPLTypeError(f"labels[{number}] must hold integers, got {value!r}{known}")
    if not 0 <= value < num_classes:
        raise PPLValueError(f"labels[{number}] holds class {value}, but the model's classes are 0..{num_classes - 1}")
    return int(value)
