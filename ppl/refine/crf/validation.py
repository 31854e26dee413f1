"""Checks of the arrays that callers give, before any engine sees them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ppl.errors import PPLTypeError, PPLValueError
from ppl.refine.crf.arrays import as_numpy, is_torch

if TYPE_CHECKING:
    import torch

    from ppl.refine.crf.config import CrfConfig

__all__ = [
    "CLIP",
    "check_features",
    "check_image",
    "check_image_tensor",
    "check_labels",
    "check_probs",
    "check_probs_tensor",
    "check_range",
    "check_unary",
]

CLIP = 1e-5
"""The least probability of which a logarithm is taken, as in pydensecrf; a label that nowhere exceeds it is absent."""

# Lattice coordinates are float32, and pydensecrf stores them in 16 bits.
_LARGEST_2D, _LARGEST_5D = 30_000.0, 16_000.0
_MOST_LABELS = 2**16
_MOST_PIXELS = 2**28  # six vertices for each of them are counted in 32 bits


def check_range(config: CrfConfig, height: int, width: int, colours: float = 255.0) -> None:
    """Refuse deviations so small that the lattice coordinates of this image lose their meaning.

    Args:
        config: the settings.
        height: of the image.
        width: of the image.
        colours: sum over the channels of the largest magnitude; 255 counts for all three channels of an image.

    Raises:
        PPLValueError: with a deviation that is large enough.
    """

    def refuse(name: str, value: float, factor: float) -> None:
        raise PPLValueError(
            f"{name}={value:g} is too small for an image of {height}x{width}; {value * factor:.3g} is large enough"
        )

    smallest = {
        name: min(value) if isinstance(value, tuple) else value
        for name, value in dict(config).items()
        if name.endswith(("sxy", "srgb"))
    }
    longest = max(height, width) - 1
    # How far a coordinate reaches: the rows of the lattice's embedding matrix, added up in magnitude.
    flat = 2.8 * longest / smallest["gaussian_sxy"]
    space, colour = 5.5 * longest / smallest["bilateral_sxy"], 4.5 * colours / smallest["bilateral_srgb"]
    if flat > _LARGEST_2D:
        refuse("gaussian_sxy", smallest["gaussian_sxy"], flat / _LARGEST_2D)
    if space + colour > _LARGEST_5D:
        name, reach = ("bilateral_sxy", space) if space > colour else ("bilateral_srgb", colour)
        refuse(name, smallest[name], 2 * reach / _LARGEST_5D)


def check_image(image: Any) -> NDArray[np.uint8]:
    """Return the image as a contiguous (H, W, 3) uint8 array.

    Raises:
        PPLTypeError: if the image is no array, or not uint8.
        PPLValueError: if the shape is wrong.
    """
    array = as_numpy(image, "image")
    _check_picture(array.shape, array.dtype)
    return np.ascontiguousarray(array)


def check_image_tensor(image: Any, device: str) -> torch.Tensor:
    """Return the image as `check_image` does, as a tensor on the device."""
    import torch

    tensor = image.detach() if is_torch(image) else torch.from_numpy(np.array(as_numpy(image, "image")))
    _check_picture(tuple(tensor.shape), tensor.dtype)
    return tensor.to(device)


def _check_picture(shape: tuple[int, ...], dtype: Any) -> None:
    if len(shape) != 3 or shape[-1] != 3:
        hint = "; move the channels last" if len(shape) == 3 and shape[0] == 3 else ""
        if len(shape) == 3 and shape[0] != 3 and shape[-1] > 3:
            hint = "; take three channels as the image, and pass all bands as features=, scaled to 0..255"
        raise PPLValueError(f"image must have shape (H, W, 3), got {shape}{hint}")
    if str(dtype).removeprefix("torch.") != "uint8":
        raise PPLTypeError(f"image must be uint8 RGB in 0..255, got {dtype}; un-normalise and convert it first")
    if 0 in shape:
        raise PPLValueError(f"image is empty: shape {shape}")
    if shape[0] * shape[1] > _MOST_PIXELS:
        raise PPLValueError(f"image has more than {_MOST_PIXELS} pixels: shape {shape}; refine it in parts")


def check_probs(probs: Any, size: tuple[int, int]) -> tuple[NDArray[np.float32], NDArray[np.intp]]:
    """Return probabilities as a contiguous (L, H, W) float32 array, and the indices of the labels that are present.

    Raises:
        PPLTypeError: if `probs` is no array, or not floating point.
        PPLValueError: if the shape is wrong, a value is negative or NaN, or a pixel does not sum to 1.
    """
    array = as_numpy(probs, "probs")
    _check_maps("probs", array.shape, np.issubdtype(array.dtype, np.floating), array.dtype, size)
    result = np.ascontiguousarray(array, dtype=np.float32)
    total = np.zeros(size, np.float32)
    lowest, highest = np.empty(len(result)), np.empty(len(result))
    for label, plane in enumerate(result):  # plane by plane, so that each stays in the cache
        lowest[label], highest[label] = plane.min(), plane.max()
        total += plane
    _check_values(probs, result, float(lowest.min()), float(np.abs(total - 1).max()))
    return result, np.flatnonzero(highest > CLIP)


def check_probs_tensor(probs: Any, size: tuple[int, int], device: str) -> tuple[torch.Tensor, NDArray[np.intp]]:
    """Return what `check_probs` returns, as a tensor on the device; a single transfer fetches all numbers to check."""
    import torch

    tensor = probs.detach() if is_torch(probs) else torch.from_numpy(np.array(as_numpy(probs, "probs")))
    _check_maps("probs", tuple(tensor.shape), tensor.is_floating_point(), tensor.dtype, size)
    result = tensor.to(torch.float32).to(device)  # MPS has no float64
    # NaN and infinity make the sum wrong.
    error = (result.sum(dim=0) - 1).abs().amax()
    lowest, furthest, *highest = torch.cat([result.amin()[None], error[None], result.amax(dim=(1, 2))]).tolist()
    _check_values(probs, result, lowest, furthest)
    return result, np.flatnonzero(np.array(highest) > CLIP)


def _check_maps(name: str, shape: tuple[int, ...], floating: bool, dtype: Any, size: tuple[int, int]) -> None:
    if len(shape) != 3:
        flat = len(shape) == 2 and shape[1] == size[0] * size[1]
        hint = f"; call .reshape({shape[0]}, {size[0]}, {size[1]})" if flat else ""
        raise PPLValueError(f"{name} must have shape (L, H, W), got {shape}{hint}")
    if not floating:
        raise PPLTypeError(f"{name} must be floating point, got {dtype}; pass label maps as labels=")
    if shape[0] == 0:
        raise PPLValueError(f"{name} holds no label: shape {shape}")
    if shape[1:] != size:
        raise PPLValueError(f"{name} is {shape[1]}x{shape[2]} but the image is {size[0]}x{size[1]}; resize one of them")


def check_unary(unary: Any, size: tuple[int, int]) -> NDArray[np.float32]:
    """Return energies as a contiguous (L, H, W) float32 array.

    Raises:
        PPLTypeError: if `unary` is no array, or not floating point.
        PPLValueError: if the shape is wrong, or a value is NaN or infinite.
    """
    array = as_numpy(unary, "unary")
    _check_maps("unary", array.shape, np.issubdtype(array.dtype, np.floating), array.dtype, size)
    result = np.ascontiguousarray(array, dtype=np.float32)
    _check_finite("unary", result)
    return result


def check_features(features: Any) -> NDArray[np.float32]:
    """Return features as a contiguous (H, W, C) float32 array.

    Raises:
        PPLTypeError: if `features` is no array of numbers.
        PPLValueError: if the shape is wrong, or a value is NaN or infinite.
    """
    array = as_numpy(features, "features")
    if array.ndim != 3 or 0 in array.shape:
        raise PPLValueError(f"features must have shape (H, W, C), none of them 0, got {array.shape}")
    if array.shape[0] * array.shape[1] > _MOST_PIXELS:
        raise PPLValueError(f"features have more than {_MOST_PIXELS} pixels: shape {array.shape}; refine them in parts")
    if not (np.issubdtype(array.dtype, np.floating) or np.issubdtype(array.dtype, np.integer)):
        raise PPLTypeError(f"features must be numbers, got {array.dtype}")
    result = np.ascontiguousarray(array, dtype=np.float32)
    _check_finite("features", result)
    return result


def _check_finite(name: str, array: NDArray[np.float32]) -> None:
    bad = ~np.isfinite(array)
    if bad.any():
        raise PPLValueError(
            f"{name} holds {int(bad.sum())} values that are NaN or infinite, the first at {_first(bad)}"
        )


def _check_values(given: Any, probs: Any, lowest: float, furthest: float) -> None:
    """Refuse negative probabilities and sums other than 1; the precision of `given` sets the tolerance."""
    half = (given.element_size() if is_torch(given) else given.dtype.itemsize) == 2
    tolerance = 1e-2 if half else 1e-3
    # NaN fails every comparison, hence the form of this test.
    if not (lowest >= -tolerance and furthest <= tolerance):
        raise PPLValueError(_describe_fault(as_numpy(probs, "probs"), tolerance))


def _describe_fault(probs: NDArray[np.float32], tolerance: float) -> str:
    _check_finite("probs", probs)
    lowest = float(probs.min())
    if lowest < -tolerance:
        return f"probs holds negative values, down to {lowest:g} at {_first(probs == lowest)}; apply a softmax first"
    total = probs.sum(axis=0)
    row, column = _first(np.abs(total - 1) == np.abs(total - 1).max())
    return (
        f"probs must sum to 1 over the labels, but sum to {total[row, column]:g} at pixel ({row}, {column}); "
        "divide by the sum or apply a softmax"
    )


def _first(mask: NDArray[np.bool_]) -> tuple[int, ...]:
    return tuple(int(index) for index in np.argwhere(mask)[0])


def check_labels(labels: Any, num_labels: int | None, size: tuple[int, int]) -> tuple[NDArray[np.int32], int]:
    """Return labels as a contiguous (H, W) int32 array, and the number of labels.

    Args:
        labels: integers from 0.
        num_labels: the number of labels; None for the highest label plus one.
        size: height and width that they must have.

    Raises:
        PPLTypeError: if `labels` is no array of integers, or `num_labels` no integer.
        PPLValueError: if the shape is wrong, or a label out of range.
    """
    if num_labels is not None and (isinstance(num_labels, bool) or not isinstance(num_labels, int | np.integer)):
        raise PPLTypeError(f"num_labels must be an int, got {num_labels!r}")
    if num_labels is not None and num_labels < 1:
        raise PPLValueError(f"num_labels must be at least 1, got {num_labels}")
    array = as_numpy(labels, "labels")
    if array.ndim != 2:
        raise PPLValueError(f"labels must have shape (H, W), got {array.shape}")
    if not np.issubdtype(array.dtype, np.integer):
        raise PPLTypeError(f"labels must be integers, got {array.dtype}; pass probabilities as probs")
    if array.shape != size:
        raise PPLValueError(
            f"labels is {array.shape[0]}x{array.shape[1]} but the image is {size[0]}x{size[1]}; resize one of them"
        )
    low, high = int(array.min()), int(array.max())
    hint = "; replace ignored pixels (255) by a label first"
    if num_labels is None and high == 255:
        raise PPLValueError(f"labels hold 255, and num_labels is not given{hint}, or pass num_labels")
    count = high + 1 if num_labels is None else int(num_labels)
    if low < 0 or high >= count:
        worst = low if low < 0 else high
        raise PPLValueError(f"labels must lie in 0..{count - 1}, found {worst}{hint if worst == 255 else ''}")
    if count > _MOST_LABELS:
        raise PPLValueError(f"num_labels must be at most {_MOST_LABELS}, got {count}")
    return np.ascontiguousarray(array, dtype=np.int32), count
