"""Affinities of neighbouring cells: the offsets of the neighbours, and how similar two cells are.

A map of `n` cells has `n * n` pairs, but only pairs closer than `radius` have an affinity, and their offsets are the
same for every cell. So affinities are kept as one map per offset, never as an `n x n` matrix. The offsets cover half of
the plane, because the affinity of a pair has no direction.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch.autograd.function import once_differentiable

from ppl.errors import PPLValueError

__all__ = ["edge_affinity", "feature_affinity", "half_plane_offsets", "paths"]


@lru_cache(maxsize=32)
def half_plane_offsets(radius: int) -> tuple[tuple[int, int], ...]:
    """Return the offsets `(dy, dx)` from a cell to its neighbours nearer than `radius`, one of each opposite pair.

    Args:
        radius: offsets have `dy**2 + dx**2 < radius**2`, as in PSA and IRN.

    Returns:
        A tuple of `(dy, dx)` with `dy >= 0`, 34 of them for the usual radius of 5.

    Raises:
        PPLValueError: if `radius` is below 2, where a cell has no neighbours.

    Example:
        >>> half_plane_offsets(2)
        ((0, 1), (1, -1), (1, 0), (1, 1))
        >>> len(half_plane_offsets(5))
        34
    """
    if radius < 2:
        raise PPLValueError(f"radius must be at least 2 for a cell to have neighbours, got {radius}")
    reach = range(-radius + 1, radius)
    return tuple(
        (dy, dx) for dy in range(radius) for dx in reach if dy * dy + dx * dx < radius * radius and (dy > 0 or dx > 0)
    )


@lru_cache(maxsize=32)
def paths(radius: int) -> tuple[tuple[tuple[int, int], ...], ...]:
    """Return the cells between a cell and each of its neighbours, both ends included.

    A cell lies on the path of two cells if it is in the rectangle that these span and nearer than one cell to the
    straight line through them (IRN, section 3.2 of Ahn et al., CVPR 2019).

    Returns:
        For each offset of `half_plane_offsets(radius)`, in that order, the `(y, x)` of the cells of its path.

    Example:
        >>> paths(3)[half_plane_offsets(3).index((0, 2))]
        ((0, 0), (0, 1), (0, 2))
    """
    result = []
    for dy, dx in half_plane_offsets(radius):
        length_squared = dy * dy + dx * dx
        columns = range(min(0, dx), max(0, dx) + 1)
        result.append(tuple((y, x) for y in range(dy + 1) for x in columns if (dy * x - dx * y) ** 2 < length_squared))
    return tuple(result)


def _shifted(padded: torch.Tensor, dy: int, dx: int, reach: int, size: tuple[int, int]) -> torch.Tensor:
    """Return the view of a padded map whose cell (y, x) is cell (y + dy, x + dx) of the map.

    Args:
        padded: the map with `reach` more cells on every side.
        dy: distance in rows.
        dx: distance in columns.
        reach: width of the padding.
        size: height and width of the map.
    """
    h, w = size
    return padded[..., reach + dy : reach + dy + h, reach + dx : reach + dx + w]


def edge_affinity(edges: torch.Tensor, radius: int = 5) -> torch.Tensor:
    """Return the affinity of neighbours from a class boundary map: 1 minus the strongest edge on the path between them.

    Source: IRN (Ahn et al., CVPR 2019), equation 2.

    Args:
        edges: `(..., h, w)`, from 0 (no boundary) to 1 (boundary). Gradients flow through the result.
        radius: distance in cells below which two cells are neighbours.

    Returns:
        `(..., D, h, w)`, the affinity of cells `(y, x)` and `(y + dy, x + dx)` for each of the `D` offsets of
        `half_plane_offsets`; 0 where the neighbour is outside the map.

    Example:
        >>> edges = torch.tensor([[0.0, 0.9, 0.0]])
        >>> edge_affinity(edges, radius=3)[half_plane_offsets(3).index((0, 2))]
        tensor([[0.1000, 0.0000, 0.0000]])
    """
    strongest: torch.Tensor = _PathMaxima.apply(edges, radius)
    return strongest.neg_().add_(1.0) if not strongest.requires_grad else 1.0 - strongest


class _PathMaxima(torch.autograd.Function):
    """The highest value on every path. Autograd alone would keep every cell of every path: gigabytes."""

    @staticmethod
    def forward(ctx: Any, edges: torch.Tensor, radius: int) -> torch.Tensor:
        h, w = edges.shape[-2:]
        reach = radius - 1
        # Edges of 1 around the map give 0 as the affinity with cells outside.
        padded = F.pad(edges, (reach, reach, reach, reach), value=1.0)
        maxima = edges.new_empty(*edges.shape[:-2], len(paths(radius)), h, w)
        for highest, path in zip(maxima.unbind(dim=-3), paths(radius), strict=True):
            highest.copy_(_shifted(padded, *path[0], reach, (h, w)))
            for dy, dx in path[1:]:
                torch.maximum(highest, _shifted(padded, dy, dx, reach, (h, w)), out=highest)
        ctx.save_for_backward(padded, maxima)
        ctx.radius = radius
        return maxima

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        padded, maxima = ctx.saved_tensors
        reach, (h, w) = ctx.radius - 1, maxima.shape[-2:]
        result = torch.zeros_like(padded)
        rest = gradient.clone()
        for left, highest, path in zip(rest.unbind(-3), maxima.unbind(-3), paths(ctx.radius), strict=True):
            for dy, dx in path:  # the gradient goes to the first cell that holds the maximum
                taken = left * (_shifted(padded, dy, dx, reach, (h, w)) == highest)
                _shifted(result, dy, dx, reach, (h, w)).add_(taken)
                left.sub_(taken)
        return result[..., reach : reach + h, reach : reach + w], None


def feature_affinity(features: torch.Tensor, radius: int = 5) -> torch.Tensor:
    """Return the affinity of neighbours from a feature map: `exp(-mean |f_i - f_j|)`, the mean over the channels.

    Source: PSA (Ahn and Kwak, CVPR 2018), equation 3.

    Args:
        features: `(..., C, h, w)`. Gradients flow through the result.
        radius: distance in cells below which two cells are neighbours.

    Returns:
        `(..., D, h, w)`, in the layout of `edge_affinity`.

    Example:
        >>> features = torch.tensor([[[0.0, 0.0, 2.0]]])
        >>> feature_affinity(features, radius=2)[0]
        tensor([[1.0000, 0.1353, 0.0000]])
    """
    h, w = features.shape[-2:]
    reach = radius - 1
    padded = F.pad(features, (reach, reach, reach, reach))
    inside = F.pad(torch.ones(h, w, dtype=features.dtype, device=features.device), (reach, reach, reach, reach))
    affinities = []
    for dy, dx in half_plane_offsets(radius):
        difference = (features - _shifted(padded, dy, dx, reach, (h, w))).abs().mean(dim=-3)
        affinities.append(torch.exp(-difference) * _shifted(inside, dy, dx, reach, (h, w)))
    return torch.stack(affinities, dim=-3)
