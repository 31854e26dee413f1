"""What a call of `generate` asks for, checked once."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch

from ppl.cam.methods import METHODS
from ppl.errors import PPLValueError

__all__ = ["MapSize", "Settings"]

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
        pair = isinstance(self.size, (tuple, list)) and len(self.size) == 2 and all(int(n) >= 1 for n in self.size)
        if not (named or pair):
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
        height, width = self.size
        return int(height), int(width)
