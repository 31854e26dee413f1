"""Arithmetic of maps (n,h,w)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

__all__ = ["GUARD", "mirrored_back", "peak_one", "resized", "sharpen"]

GUARD = 1e-5
"""A small number that is added to the maximum of a map before the division."""


def sharpen(total: Tensor, evidence: Tensor) -> Tensor:
    """Multiply maps by the square root of evidence, which is first divided by the spatial maximum.

    The square root keeps cells of weak evidence; it is our choice, see the page of results.

    Args:
        total: (n,h,w), 0 or more.
        evidence: (n,h,w), 0 or more.

    Returns:
        (n,h,w), at most `total`.

    Example:
        >>> import torch
        >>> sharpen(torch.tensor([[[4.0, 4.0]]]), torch.tensor([[[0.25, 1.0]]])).round().tolist()
        [[[2.0, 4.0]]]
    """
    return total * peak_one(evidence).sqrt()


def peak_one(maps: Tensor, guard: float = GUARD) -> Tensor:
    """Divide maps (n,h,w) by their spatial maximum plus a guard against 0.

    Example:
        >>> import torch
        >>> peak_one(torch.tensor([[[1.0, 4.0]]])).round(decimals=2).tolist()
        [[[0.25, 1.0]]]
    """
    return maps / (maps.amax(dim=(1, 2), keepdim=True) + guard) if len(maps) else maps


def mirrored_back(maps: Tensor, mirrored: bool) -> Tensor:
    """Add the second half of maps, mirrored, to the first half.

    Example:
        >>> import torch
        >>> mirrored_back(torch.tensor([[[1.0, 2.0]], [[3.0, 4.0]]]), mirrored=True)
        tensor([[[5., 5.]]])
    """
    if not mirrored:
        return maps
    first, second = maps.chunk(2)
    return first + second.flip(-1)


def resized(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize maps bilinearly."""
    return F.interpolate(maps[None], size, mode="bilinear", align_corners=False)[0]
