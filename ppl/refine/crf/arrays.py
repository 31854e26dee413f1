"""Arrays of numpy and torch, without importing torch."""

from __future__ import annotations

import sys
from typing import Any, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from ppl.errors import PPLTypeError

__all__ = ["as_numpy", "device_of", "is_torch", "native_bytes", "to_caller"]

ArrayT = TypeVar("ArrayT", bound=Any)


def is_torch(array: Any) -> bool:
    """Return whether `array` is a torch tensor, without importing torch."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(array, torch.Tensor)


def device_of(array: Any) -> str:
    """Return the device of an array."""
    return str(array.device) if is_torch(array) else "cpu"


def native_bytes(array: NDArray[Any]) -> NDArray[Any]:
    """Return the array, or a copy in the byte order of this machine, the only order that torch knows."""
    return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))


def as_numpy(array: Any, name: str) -> NDArray[Any]:
    """Return a numpy view or copy of a numpy array or a torch tensor on any device."""
    if is_torch(array):
        tensor = array.detach()
        if tensor.is_floating_point() and tensor.element_size() == 2:
            tensor = tensor.float()  # numpy has no bfloat16
        result: NDArray[Any] = tensor.cpu().numpy()
        return result
    if isinstance(array, np.ndarray):
        return native_bytes(array)
    raise PPLTypeError(f"{name} must be a numpy array or a torch tensor, got {type(array).__name__}")


def to_caller(result: Any, like: ArrayT) -> ArrayT:
    """Return an array or tensor as the caller's kind of array: torch in, torch out on the same device."""
    if not is_torch(like):
        return cast("ArrayT", as_numpy(result, "result"))
    import torch

    return cast("ArrayT", torch.as_tensor(result).to(like.device))
