"""Propagate class maps between cells of an image that look alike to the network."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ppl.errors import PPLValueError

__all__ = ["SHARPNESS", "propagate"]

SHARPNESS = (1.5, 4.0)
"""Sharpness of the similarity in the layer before the last default cut (stride 8) and at that cut (stride 16)."""

# The affinities of this many cells, 25 MB, are computed for each image.
_MOST_CELLS = 2500
_TINY = 1e-6


def propagate(maps: Tensor, features: Sequence[Tensor], sharpness: Sequence[float] = SHARPNESS) -> Tensor:
    """Average each map over all cells of the image, and weigh cells by the similarity of their features.

    A class map is high on the most telling part of an object. Cells of the rest of the object have similar features,
    and cells of the background have others, so the average is high on the whole object and low elsewhere. Its values
    fall into two groups, which Otsu's threshold (the background rule "auto") separates.

    The weight of cell j for cell i is the softmax over j of `sum_s sharpness_s * cos(f_s(i), f_s(j))`, where the mean
    over the image is first subtracted from the features f_s. No distance limits the average, and one step is taken.
    The method is ours; see the page of results on PASCAL VOC.

    Args:
        maps: (k,H,W), 0 or more.
        features: one map (C,h,w) per layer. Cells are those of the coarsest one, 2500 at most.
        sharpness: the factor of each layer's similarity, 0 or more.

    Returns:
        (k,H,W) float32, 0 or more; the spatial minimum of each map is subtracted.

    Raises:
        PPLValueError: if there are no features, or not one factor for each.

    Example:
        >>> maps = torch.tensor([[[1.0, 0.0, 0.0, 0.0]]])  # the head of an animal of two cells
        >>> features = torch.tensor([[[1.0, 1.0, 0.0, 0.0]], [[0.0, 0.0, 1.0, 1.0]]])
        >>> propagate(maps, [features], [4.0]).round(decimals=2).tolist()
        [[[0.5, 0.5, 0.0, 0.0]]]
    """
    if not features or len(features) != len(sharpness):
        raise PPLValueError(
            f"features need one factor of sharpness each, got {len(features)} maps and {len(sharpness)} factors"
        )
    if not len(maps):
        return maps.float()
    cells = _cells(features)
    small = _resized(maps.float()[None], cells)[0].flatten(1)
    with torch.autocast(maps.device.type, enabled=False):  # half precision would make steps of the averages
        affinity = _affinity([_resized(layer.float()[None], cells)[0] for layer in features], sharpness)
        spread = (small @ affinity.T).view(-1, *cells)
    spread = spread - spread.amin(dim=(1, 2), keepdim=True)
    size = (maps.shape[1], maps.shape[2])
    return F.interpolate(spread[None], size, mode="bilinear", align_corners=False)[0]


def _cells(features: Sequence[Tensor]) -> tuple[int, int]:
    """Height and width of the coarsest map, made smaller if it has too many cells."""
    height, width = min(((layer.shape[1], layer.shape[2]) for layer in features), key=math.prod)
    factor = min(1.0, math.sqrt(_MOST_CELLS / (height * width)))
    return max(1, int(height * factor)), max(1, int(width * factor))


def _affinity(features: Sequence[Tensor], sharpness: Sequence[float]) -> Tensor:
    """Weights (n,n) of all pairs of n cells; each row sums to 1."""
    total: Tensor | float = 0.0
    for layer, factor in zip(features, sharpness, strict=True):
        cells = layer.flatten(1)
        # In float32 the mean of equal cells differs from them by rounding; such noise has no direction.
        centred = cells - cells.mean(dim=1, keepdim=True)
        length = centred.norm(dim=0, keepdim=True)
        directions = centred / length.clamp(min=_TINY * float(cells.abs().max()) + _TINY)
        total = total + factor * (directions.T @ directions)
    assert isinstance(total, Tensor)
    return torch.softmax(total, dim=1)


def _resized(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize maps (1,C,h,w) by the mean over each cell, or by interpolation where cells become smaller."""
    if maps.shape[2:] == size:
        return maps
    if maps.shape[2] >= size[0] and maps.shape[3] >= size[1]:
        return F.interpolate(maps, size, mode="area")
    return F.interpolate(maps, size, mode="bilinear", align_corners=False)
