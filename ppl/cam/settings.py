"""What a call of `generate` asks for, checked once."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any, Literal, TypeAlias

import torch

from ppl.cam.methods import METHODS
from ppl.errors import PPLTypeError, PPLValueError

__all__ = ["MapSize", "Settings", "make_settings"]

MapSize: TypeAlias = Literal["image", "feature"] | tuple[int, int]

# Pixels of one forward pass where no batch size is given. A CPU gains nothing from more; in a ResNet-50 they take about
# a quarter of a GB there, and 4 GB on CUDA.
_PIXELS = {"cpu": 2**20, "cuda": 2**24}


@dataclass(frozen=True)
class Settings:
    """The arguments of `ppl.cam.generate` besides model, images and labels.

    Raises:
        PPLValueError: if one of them is unknown or out of range.
    """

    scales: tuple[float, ...]
    flip: bool
    method: str
    normalize: str
    size: MapSize
    batch_size: int | None
    amp: bool
    device: torch.device

    def __post_init__(self) -> None:
        if not self.scales or not all(math.isfinite(scale) and scale > 0 for scale in self.scales):
            raise PPLValueError(f"scales must be one or more numbers above 0, got {self.scales}")
        if self.method not in METHODS:
            raise PPLValueError(f"method must be one of {', '.join(METHODS)}, got {self.method!r}")
        if self.normalize not in ("max", "none"):
            raise PPLValueError(f"normalize must be 'max' or 'none', got {self.normalize!r}")
        if self.batch_size is not None and self.batch_size < 1:
            raise PPLValueError(f"batch_size must be at least 1, got {self.batch_size}")
        named = isinstance(self.size, str) and self.size in ("image", "feature")
        if not (named or (isinstance(self.size, tuple) and len(self.size) == 2 and min(self.size) >= 1)):
            raise PPLValueError(f"size must be 'image', 'feature' or (h,w), got {self.size!r}")

    @property
    def ordered_scales(self) -> list[float]:
        """The scale nearest to 1 first, since classes, scores and feature size are read from it."""
        return sorted(self.scales, key=lambda scale: abs(math.log(scale)))

    def images_per_pass(self, height: int, width: int, device: torch.device) -> int:
        """How many images of that size, with their mirror images, go through the model at once."""
        if self.batch_size is not None:
            return self.batch_size
        pixels = height * width * max(self.scales) ** 2 * (2 if self.flip else 1)
        return max(1, int(_PIXELS.get(device.type, _PIXELS["cpu"]) / pixels))

    def map_size(self, image: tuple[int, int], feature: tuple[int, int]) -> tuple[int, int]:
        """(h,w) of the maps of an image, given its size and that of its feature map."""
        if self.size == "image":
            return image
        if self.size == "feature":
            return feature
        return self.size


def make_settings(
    scales: Sequence[float],
    flip: bool,
    method: str,
    normalize: str,
    size: MapSize,
    batch_size: int | None,
    amp: bool,
    device: torch.device | str,
) -> Settings:
    """The arguments of `generate` as they were given, of the right types.

    Raises:
        PPLTypeError: if one of them is of another type.
        PPLValueError: if one of them is unknown or out of range.
    """
    scales = scales if isinstance(scales, (Real, str)) else tuple(scales)
    if isinstance(scales, (Real, str)) or not all(isinstance(scale, Real) for scale in scales):
        raise PPLTypeError(f"scales must be a sequence of numbers, got {scales!r}: write scales=(1.0,) for one scale")
    if isinstance(size, (tuple, list)):
        size = tuple(_whole("size", side) for side in size)  # type: ignore[assignment]
    if batch_size is not None:
        batch_size = _whole("batch_size", batch_size)
    try:
        where = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise PPLValueError(f"device must be one that torch knows, got {device!r}: {error}") from None
    return Settings(tuple(map(float, scales)), flip, method, normalize, size, batch_size, amp, where)


def _whole(name: str, value: Any) -> int:
    try:
        return operator.index(value)
    except TypeError:
        raise PPLTypeError(f"{name} must be whole numbers, got {value!r}") from None
