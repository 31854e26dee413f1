"""Input of the metrics: NumPy arrays, torch tensors and nested lists, checked and turned into tensors."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from ppl.errors import PPLTypeError, PPLValueError

__all__ = ["as_numbers", "check_ignored", "class_indices", "same_shape"]


def as_numbers(values: Any, what: str) -> Tensor:
    """Return values as a tensor of real numbers.

    Raises:
        PPLTypeError: if the values are not real numbers.
    """
    if isinstance(values, Tensor):
        tensor = values.detach()
    else:
        try:
            array = np.asarray(values)
            # Copy arrays of another byte order, with negative strides or in read-only memory, which torch refuses.
            tensor = torch.from_numpy(np.require(array, array.dtype.newbyteorder("="), ["C", "W"]))
        except (TypeError, ValueError, RuntimeError) as error:
            raise PPLTypeError(
                f"{what} is {values!r:.40}, which is not an array of numbers; give a NumPy array or torch tensor"
            ) from error
    if tensor.is_complex():
        raise PPLTypeError(f"{what} holds {tensor.dtype}; give real numbers")
    return tensor


def class_indices(values: Any, what: str, num_classes: int, ignore_index: int | None) -> Tensor:
    """Return values as an int64 tensor of class indices, after checking their range.

    Args:
        values: NumPy array, torch tensor or nested list.
        what: name of the argument, for errors.
        num_classes: number of classes.
        ignore_index: a further value that is allowed, or None.

    Raises:
        PPLTypeError: if the values are not integers.
        PPLValueError: if a value is not a class; the message holds the value.
    """
    tensor = as_numbers(values, what)
    if tensor.is_floating_point():
        raise PPLTypeError(f"{what} holds {tensor.dtype}; class indices are integers: take the argmax")
    tensor = tensor.to(torch.int64)
    wrong = (tensor < 0) | (tensor >= num_classes)
    if ignore_index is not None:
        wrong &= tensor != ignore_index
    if bool(wrong.any()):
        known = f"0..{num_classes - 1}" + ("" if ignore_index is None else f", or {ignore_index} for ignore")
        raise PPLValueError(f"{what} holds {int(tensor[wrong][0])}; indices are {known}")
    return tensor


def check_ignored(ignore_index: int, num_classes: int) -> None:
    """Raise PPLValueError if the value that is not scored is a class."""
    if 0 <= ignore_index < num_classes:
        raise PPLValueError(f"ignore_index {ignore_index} is one of the {num_classes} classes; choose one outside")


def same_shape(target: Tensor, other: Tensor, what: str) -> None:
    """Check that two tensors have the same shape.

    Raises:
        PPLValueError: if the shapes differ; the message holds both.
    """
    if target.shape != other.shape:
        shapes = f"{tuple(target.shape)} and {tuple(other.shape)}"
        raise PPLValueError(f"target and {what} have shapes {shapes}; resize the {what} to the target's")
