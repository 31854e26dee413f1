"""Input and output of the refiners: numpy arrays or torch tensors, checked, and returned as the same kind."""

from __future__ import annotations

from typing import Annotated, Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field

from ppl.errors import PPLTypeError, PPLValueError
from ppl.refine.crf.arrays import native_bytes

__all__ = ["Positive", "Weight", "as_image", "as_tensor", "check_batch", "check_finite", "float64_device", "like"]

Array = TypeVar("Array", npt.NDArray[np.generic], torch.Tensor)

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
"""Type of a parameter that is a number above 0."""

Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]
"""Type of a parameter that is a number of at least 0."""

_ROUNDING = 1e-2  # resizing and half precision may leave [0, 1] by this much


def as_tensor(array: Any, name: str, shape: str) -> torch.Tensor:
    """Return an array as a tensor over the same memory, after checking its dimensions and its type.

    Args:
        array: numpy array or tensor of floating point numbers.
        name: name of the argument, for errors.
        shape: names of the expected dimensions, such as `"k h w"`.

    Returns:
        The tensor.

    Raises:
        PPLTypeError: if it is neither an array nor a tensor, or holds integers.
        PPLValueError: if the number of dimensions differs.

    Example:
        >>> as_tensor(np.zeros((2, 3, 4), np.float32), "maps", "k h w").shape
        torch.Size([2, 3, 4])
    """
    if isinstance(array, np.ndarray):
        tensor = _over(array)
    elif isinstance(array, torch.Tensor):
        tensor = array
    else:
        raise PPLTypeError(f"{name} must be a numpy array or a torch tensor, got {type(array).__name__}")
    names = shape.split()
    if tensor.ndim != len(names):
        raise PPLValueError(f"{name} must be ({', '.join(names)}), got shape {tuple(tensor.shape)}")
    if not tensor.is_floating_point():
        raise PPLTypeError(f"{name} must hold floating point numbers, got {tensor.dtype}: convert with .astype or .to")
    return tensor


def _over(array: npt.NDArray[Any]) -> torch.Tensor:
    """Return a tensor over the array's memory, or over a copy of memory that torch cannot hold.

    Torch has no read-only memory, no negative strides and no other byte orders.
    """
    array = native_bytes(array)
    return torch.from_numpy(array if array.flags.writeable and array.flags.c_contiguous else array.copy())


def as_image(image: Any, size: tuple[int, int], name: str = "image") -> torch.Tensor:
    """Return an image `(H, W, 3)` or `(B, H, W, 3)` as a float tensor in [0, 1], after checking its size.

    Args:
        image: uint8 in 0..255 or floating point in [0, 1], numpy or torch, channels last.
        size: height and width of the maps.
        name: name of the argument, for errors.

    Returns:
        Float32 tensor, or float64 if the image is float64, channels last.

    Raises:
        PPLTypeError: if the image is neither an array nor a tensor, or has another integer type.
        PPLValueError: if the image is not a colour image, has another size, or leaves [0, 1].

    Example:
        >>> float(as_image(np.full((1, 2, 3), 255, np.uint8), (1, 2)).max())
        1.0
    """
    if isinstance(image, np.ndarray):
        image = _over(image)
    if not isinstance(image, torch.Tensor):
        raise PPLTypeError(f"{name} must be a numpy array or a torch tensor, got {type(image).__name__}")
    if image.ndim not in (3, 4) or image.shape[-1] != 3:
        raise PPLValueError(f"{name} must be (H, W, 3), channels last, got shape {tuple(image.shape)}")
    if tuple(image.shape[-3:-1]) != size:
        raise PPLValueError(f"{name} is {tuple(image.shape[-3:-1])} but the maps are {size}: resize one of them")
    if image.dtype == torch.uint8:
        return image.float() / 255.0
    if not image.is_floating_point():
        raise PPLTypeError(f"{name} must be uint8 or floating point, got {image.dtype}")
    if image.numel() and not (float(image.min()) >= -_ROUNDING and float(image.max()) <= 1 + _ROUNDING):
        check_finite(name, image)
        raise PPLValueError(
            f"{name} is floating point and must lie in [0, 1], got {float(image.min()):.3g} to"
            f" {float(image.max()):.3g}: pass uint8, or divide by 255"
        )
    return image if image.dtype == torch.float64 else image.float()


def check_batch(image: torch.Tensor, maps: torch.Tensor) -> None:
    """Refuse a single image with a batch of maps, a batch with single maps, and batches of different lengths.

    Args:
        image: `(H, W, 3)` or `(B, H, W, 3)`.
        maps: `(k, H, W)` or `(B, k, H, W)`.

    Raises:
        PPLValueError: with both shapes.

    Example:
        >>> check_batch(torch.zeros(2, 4, 5, 3), torch.zeros(2, 7, 4, 5))
    """
    if image.ndim != maps.ndim or (image.ndim == 4 and image.shape[0] != maps.shape[0]):
        raise PPLValueError(
            f"image {tuple(image.shape)} and maps {tuple(maps.shape)} must both be single or batches of equal length"
        )


def check_finite(name: str, values: torch.Tensor) -> None:
    """Refuse NaN and infinity, which a refiner would spread to the neighbours.

    Raises:
        PPLValueError: with the number of values that are not finite.

    Example:
        >>> check_finite("maps", torch.zeros(2))
    """
    finite = torch.isfinite(values)
    if not bool(finite.all()):
        raise PPLValueError(f"{name} hold {int((~finite).sum())} values that are NaN or infinite: clean them first")


def float64_device(device: torch.device) -> torch.device:
    """Return the device on which to compute in float64: the CPU for Apple's MPS, which has none, else `device`.

    Example:
        >>> float64_device(torch.device("mps")), float64_device(torch.device("cuda", 1))
        (device(type='cpu'), device(type='cuda', index=1))
    """
    return torch.device("cpu") if device.type == "mps" else device


def like(original: Array, result: torch.Tensor) -> Array:
    """Return a result as a numpy array if the caller passed one in, else as the tensor.

    Example:
        >>> type(like(np.zeros(2), torch.zeros(2))).__name__
        'ndarray'
    """
    return result.numpy() if isinstance(original, np.ndarray) else result
