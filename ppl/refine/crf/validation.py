"""Everything that is checked before an engine sees an array: the one border of the CRF."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from ppl.errors import PPLTypeError, PPLValueError

if TYPE_CHECKING:
    import torch

__all__ = [
    "CLIP",
    "ArrayT",
    "CRFSettings",
    "as_numpy",
    "check_image",
    "check_image_tensor",
    "check_labels",
    "check_probs",
    "check_probs_tensor",
    "device_of",
    "is_torch",
    "native_bytes",
    "to_caller",
]

ArrayT = TypeVar("ArrayT", bound=Any)

CLIP = 1e-5
"""Probabilities enter the logarithm no smaller, as in pydensecrf; a label that nowhere exceeds it is absent."""

# Lattice coordinates are float32, pydensecrf stores them in 16 bits, and here five of them share one 64-bit key.
_LARGEST_2D, _LARGEST_5D = 30_000.0, 16_000.0
_MOST_LABELS = 2**16
_MOST_PIXELS = 2**28  # six vertices for each of them are counted in 32 bits


@dataclass(frozen=True)
class CRFSettings:
    """The checked numeric settings of one inference."""

    iterations: int = 10
    gaussian_sxy: float = 3
    gaussian_compat: float = 3
    bilateral_sxy: float = 80
    bilateral_srgb: float = 13
    bilateral_compat: float = 10

    def __post_init__(self) -> None:
        if isinstance(self.iterations, bool) or not isinstance(self.iterations, int | np.integer):
            raise PPLTypeError(f"iterations must be an int, got {self.iterations!r}")
        if self.iterations < 0:
            raise PPLValueError(f"iterations must be 0 or more, got {self.iterations}")
        for name in ("gaussian_sxy", "bilateral_sxy", "bilateral_srgb", "gaussian_compat", "bilateral_compat"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
                raise PPLTypeError(f"{name} must be a number, got {value!r}")
            deviation = name.endswith(("sxy", "srgb"))
            if not math.isfinite(value) or value < 0 or (deviation and value == 0):
                needed = "positive" if deviation else "0 or more"
                raise PPLValueError(f"{name} must be finite and {needed}, got {value}")
            if value > 1e6:
                raise PPLValueError(f"{name} must be at most 1e6, got {value}")

    def check_range(self, height: int, width: int) -> None:
        """Refuse deviations so small that the lattice coordinates of this image size lose their meaning."""
        longest = max(height, width) - 1
        # How far a coordinate reaches: the rows of the lattice's embedding matrix, added up in magnitude.
        flat = 2.8 * longest / self.gaussian_sxy
        space, colour = 5.5 * longest / self.bilateral_sxy, 4.5 * 255 / self.bilateral_srgb
        if flat > _LARGEST_2D:
            self._refuse("gaussian_sxy", flat / _LARGEST_2D, height, width)
        if space + colour > _LARGEST_5D:
            name, reach = ("bilateral_sxy", space) if space > colour else ("bilateral_srgb", colour)
            self._refuse(name, 2 * reach / _LARGEST_5D, height, width)

    def _refuse(self, name: str, factor: float, height: int, width: int) -> None:
        value = getattr(self, name)
        raise PPLValueError(
            f"{name}={value:g} is too small for an image of {height}x{width}; {value * factor:.3g} is large enough"
        )


def is_torch(array: Any) -> bool:
    """Whether `array` is a torch tensor, found out without importing torch."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(array, torch.Tensor)


def device_of(array: Any) -> str:
    """Where an array lives."""
    return str(array.device) if is_torch(array) else "cpu"


def native_bytes(array: NDArray[Any]) -> NDArray[Any]:
    """The array itself, or a copy in the byte order of this machine, which is the only one that torch knows."""
    return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))


def as_numpy(array: Any, name: str) -> NDArray[Any]:
    """A numpy view or copy of a numpy array or a torch tensor on any device."""
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
    """An array or tensor as the caller's kind of array: torch in, torch out on the same device."""
    if not is_torch(like):
        return cast("ArrayT", as_numpy(result, "result"))
    import torch

    return cast("ArrayT", torch.as_tensor(result).to(like.device))


def check_image(image: Any) -> NDArray[np.uint8]:
    """A contiguous (H, W, 3) uint8 array, or an error that says what it was instead."""
    array = as_numpy(image, "image")
    _check_picture(array.shape, array.dtype)
    return np.ascontiguousarray(array)


def check_image_tensor(image: Any, device: str) -> torch.Tensor:
    """`check_image` for the torch engine: on the device, from wherever the image is."""
    import torch

    tensor = image.detach() if is_torch(image) else torch.from_numpy(np.array(as_numpy(image, "image")))
    _check_picture(tuple(tensor.shape), tensor.dtype)
    return tensor.to(device)


def _check_picture(shape: tuple[int, ...], dtype: Any) -> None:
    if len(shape) != 3 or shape[-1] != 3:
        hint = "; move the channels last" if len(shape) == 3 and shape[0] == 3 else ""
        raise PPLValueError(f"image must have shape (H, W, 3), got {shape}{hint}")
    if str(dtype).removeprefix("torch.") != "uint8":
        raise PPLTypeError(f"image must be uint8 RGB in 0..255, got {dtype}; un-normalise and convert it first")
    if 0 in shape:
        raise PPLValueError(f"image is empty: shape {shape}")
    if shape[0] * shape[1] > _MOST_PIXELS:
        raise PPLValueError(f"image has more than {_MOST_PIXELS} pixels: shape {shape}; refine it in parts")


def check_probs(probs: Any, size: tuple[int, int]) -> tuple[NDArray[np.float32], NDArray[np.intp]]:
    """A contiguous (L, H, W) float32 array of probabilities, or an error that says what is wrong with them.

    Returns:
        The array, and the indices of the labels that are present.
    """
    array = as_numpy(probs, "probs")
    _check_maps(array.shape, np.issubdtype(array.dtype, np.floating), array.dtype, size)
    result = np.ascontiguousarray(array, dtype=np.float32)
    total = np.zeros(size, np.float32)
    lowest, highest = np.empty(len(result)), np.empty(len(result))
    for label, plane in enumerate(result):  # plane by plane: each stays in the cache
        lowest[label], highest[label] = plane.min(), plane.max()
        total += plane
    _check_values(probs, result, float(lowest.min()), float(np.abs(total - 1).max()))
    return result, np.flatnonzero(highest > CLIP)


def check_probs_tensor(probs: Any, size: tuple[int, int], device: str) -> tuple[torch.Tensor, NDArray[np.intp]]:
    """`check_probs` for the torch engine: on the device, with one look at the numbers from outside."""
    import torch

    tensor = probs.detach() if is_torch(probs) else torch.from_numpy(np.array(as_numpy(probs, "probs")))
    _check_maps(tuple(tensor.shape), tensor.is_floating_point(), tensor.dtype, size)
    result = tensor.to(device, torch.float32)
    # NaN and infinity make the sum wrong.
    error = (result.sum(dim=0) - 1).abs().amax()
    lowest, furthest, *highest = torch.cat([result.amin()[None], error[None], result.amax(dim=(1, 2))]).tolist()
    _check_values(probs, result, lowest, furthest)
    return result, np.flatnonzero(np.array(highest) > CLIP)


def _check_maps(shape: tuple[int, ...], floating: bool, dtype: Any, size: tuple[int, int]) -> None:
    if len(shape) != 3:
        raise PPLValueError(f"probs must have shape (L, H, W), got {shape}")
    if not floating:
        raise PPLTypeError(f"probs must be floating point, got {dtype}; for label maps use crf_from_labels")
    if shape[0] == 0:
        raise PPLValueError(f"probs holds no label: shape {shape}")
    if shape[1:] != size:
        raise PPLValueError(f"probs is {shape[1]}x{shape[2]} but the image is {size[0]}x{size[1]}; resize one of them")


def _check_values(given: Any, probs: Any, lowest: float, furthest: float) -> None:
    """Refuse what is negative, or adds up to anything but 1; `given` had the precision, `probs` is float32."""
    half = (given.element_size() if is_torch(given) else given.dtype.itemsize) == 2
    tolerance = 1e-2 if half else 1e-3
    # NaN fails every comparison, hence the form of this test.
    if not (lowest >= -tolerance and furthest <= tolerance):
        raise PPLValueError(_what_is_wrong(as_numpy(probs, "probs"), tolerance))


def _what_is_wrong(probs: NDArray[np.float32], tolerance: float) -> str:
    bad = ~np.isfinite(probs)
    if bad.any():
        return f"probs holds {int(bad.sum())} values that are NaN or infinite, the first at {_first(bad)}"
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


def check_labels(labels: Any, num_labels: int, size: tuple[int, int]) -> NDArray[np.int32]:
    """A contiguous (H, W) int32 array of labels in 0..num_labels-1, or an error that says what it was instead."""
    if isinstance(num_labels, bool) or not isinstance(num_labels, int | np.integer):
        raise PPLTypeError(f"num_labels must be an int, got {num_labels!r}")
    if num_labels < 1:
        raise PPLValueError(f"num_labels must be at least 1, got {num_labels}")
    if num_labels > _MOST_LABELS:
        raise PPLValueError(f"num_labels must be at most {_MOST_LABELS}, got {num_labels}")
    array = as_numpy(labels, "labels")
    if array.ndim != 2:
        raise PPLValueError(f"labels must have shape (H, W), got {array.shape}")
    if not np.issubdtype(array.dtype, np.integer):
        raise PPLTypeError(f"labels must be integers, got {array.dtype}; for probabilities use crf")
    if array.shape != size:
        raise PPLValueError(
            f"labels is {array.shape[0]}x{array.shape[1]} but the image is {size[0]}x{size[1]}; resize one of them"
        )
    low, high = int(array.min()), int(array.max())
    if low < 0 or high >= num_labels:
        worst = low if low < 0 else high
        hint = "; replace ignored pixels (255) by a label first" if worst == 255 else ""
        raise PPLValueError(f"labels must lie in 0..{num_labels - 1}, found {worst}{hint}")
    return np.ascontiguousarray(array, dtype=np.int32)
