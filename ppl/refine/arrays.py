"""The border between callers and the refiners: numpy or torch in, the same out, shapes named in errors."""

from __future__ import annotations

from typing import Annotated, Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field

from ppl.errors import PPLTypeError, PPLValueError
from ppl.refine.crf.validation import native_bytes

__all__ = ["Positive", "Weight", "as_image", "as_tensor", "check_batch", "check_finite", "like"]

Array = TypeVar("Array", npt.NDArray[np.generic], torch.Tensor)

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
"""A parameter that is a number above 0."""

Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]
"""A parameter that is a number from 0."""

# What resizing or half precision may leave beyond [0, 1].
_ROUNDING = 1e-2


def as_tensor(array: Any, name: str, shape: str) -> torch.Tensor:
    """A tensor over the same memory, checked for its number of dimensions and for holding floating point numbers.

    Args:
        array: numpy array or tensor.
        name: what the caller calls it.
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
    """A tensor over the array's memory, or over a copy: torch has no read-only memory, strides below 0, other bytes."""
    array = native_bytes(array)
    return torch.from_numpy(array if array.flags.writeable and array.flags.c_contiguous else array.copy())


def as_image(image: Any, size: tuple[int, int], name: str = "image") -> torch.Tensor:
    """An image `(H, W, 3)` or `(B, H, W, 3)` as a float tensor in [0, 1], of the size that the maps have.

    Args:
        image: uint8 in 0..255 or floating point in [0, 1], numpy or torch, channels last.
        size: height and width that it must have.
        name: what the caller calls it.

    Returns:
        Float32 (float64 if it was that) tensor, channels last.

    Raises:
        PPLTypeError: if it is neither an array nor a tensor, or of another integer type.
        PPLValueError: if it is no colour image, of another size, or leaves [0, 1].

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
    """Refuse images and maps of which one is a batch and the other is not, or of different lengths.

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
    """Refuse NaN and infinity, which every refiner would spread over its neighbourhood.

    Args:
        name: what the caller calls it.
        values: tensor of any shape.

    Raises:
        PPLValueError: with the number of such values.

    Example:
        >>> check_finite("maps", torch.zeros(2))
    """
    finite = torch.isfinite(values)
    if not bool(finite.all()):
        raise PPLValueError(f"{name} hold {int((~finite).sum())} values that are NaN or infinite: clean them first")


def like(original: Array, result: torch.Tensor) -> Array:
    """The result as the kind of thing that the caller passed in.

    Args:
        original: what came in.
        result: what goes out.

    Returns:
        A numpy array if `original` is one, else `result`.

    Example:
        >>> type(like(np.zeros(2), torch.zeros(2))).__name__
        'ndarray'
    """
    return result.numpy() if isinstance(original, np.ndarray) else result
