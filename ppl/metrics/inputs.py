"""What the metrics take: NumPy arrays, torch tensors, nested lists."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from ppl.errors import PPLTypeError, PPLValueError

__all__ = ["as_numbers", "class_indices", "same_shape"]


def as_numbers(values: Any, what: str) -> Tensor:
    """Values as a tensor of real numbers.

    Raises:
        PPLTypeError: if they are none, e.g. None, text or objects.
    """
    if isinstance(values, Tensor):
        tensor = values.detach()
    else:
        try:
            array = np.asarray(values)
            # torch takes neither another byte order nor negative strides, and warns of read-only memory: copy such
            tensor = torch.from_numpy(np.require(array, array.dtype.newbyteorder("="), ["C", "W"]))
        except (TypeError, ValueError, RuntimeError) as error:
            raise PPLTypeError(
                f"{what} is {values!r:.40}, no array of numbers; give a NumPy array or torch tensor"
            ) from error
    if tensor.is_complex():
        raise PPLTypeError(f"{what} holds {tensor.dtype}; give real numbers")
    return tensor


def class_indices(values: Any, what: str, num_classes: int, ignore_index: int | None) -> Tensor:
    """Values as an int64 tensor of class indices, each checked to be one, or `ignore_index` if there is such.

    Raises:
        PPLTypeError: if they are not integers.
        PPLValueError: if one is no class; the message holds it.
    """
    tensor = as_numbers(values, what)
    if tensor.is_floating_point():
        raise PPLTypeError(f"{what} holds {tensor.dtype}; class indices are integers: take the argmax or a threshold")
    tensor = tensor.to(torch.int64)
    wrong = (tensor < 0) | (tensor >= num_classes)
    if ignore_index is not None:
        wrong &= tensor != ignore_index
    if bool(wrong.any()):
        known = f"0..{num_classes - 1}" + ("" if ignore_index is None else f", or {ignore_index} for ignore")
        raise PPLValueError(f"{what} holds {int(tensor[wrong][0])}; indices are {known}")
    return tensor


def same_shape(target: Tensor, other: Tensor, what: str) -> None:
    """Check two shapes.

    Raises:
        PPLValueError: if they differ; the message holds both.
    """
    if target.shape != other.shape:
        shapes = f"{tuple(target.shape)} and {tuple(other.shape)}"
        raise PPLValueError(f"target and {what} have shapes {shapes}; resize the {what} to the target's")
