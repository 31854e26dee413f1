"""Random walk: spread class scores between cells that belong together, without an n x n matrix."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Annotated, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field

from ppl.errors import PPLTypeError, PPLValueError
from ppl.parameters import check_parameters
from ppl.refine.arrays import as_tensor, check_finite, like
from ppl.refine.stencil import edge_affinity, feature_affinity, half_plane_offsets

__all__ = ["random_walk"]

Array = TypeVar("Array", npt.NDArray[np.generic], torch.Tensor)

# Sum of the coefficients that the Chebyshev expansion leaves out. The rounding of float32 is larger.
_TAIL = 1e-7


def random_walk(
    edges: Array | None,
    maps: Array,
    *,
    features: Array | None = None,
    radius: Annotated[int, Field(ge=2)] = 5,
    beta: Annotated[float, Field(gt=0)] = 10.0,
    num_steps: Annotated[int, Field(ge=0)] = 256,
) -> Array:
    """Propagate maps over the affinities of neighbouring cells.

    One step of the walk replaces the score of every cell by the average over its neighbourhood, weighted with
    `affinity ** beta`. IRN and PSA compute the steps by squaring a dense `(h*w, h*w)` matrix, which takes half a
    gigabyte for one 500x375 image at stride 4. Here the neighbourhood is a stencil of `D` affinities per cell (34 at
    radius 5), so memory grows with the number of cells only, and the `num_steps` applications are expanded in Chebyshev
    polynomials: about `6 * sqrt(num_steps)` applications give the same result to the accuracy of float32.

    Sources: IRN (Ahn et al., CVPR 2019) for `edges`, PSA (Ahn and Kwak, CVPR 2018) for `features`. The defaults are
    IRN's values at stride 4; PSA takes `beta=8` at stride 8.

    Args:
        edges: `(h, w)` class boundary map in [0, 1], of the same kind as `maps`. The affinity of two cells is 1 minus
            the largest edge on the path between them. Scores on an edge are first multiplied by `1 - edge`, as in IRN.
            None if `features` are given.
        maps: `(k, h, w)` scores, any floating type; numpy or torch.
        features: `(C, h, w)`, instead of `edges`: the affinity of two cells is `exp(-mean |f_i - f_j|)`, as in PSA.
        radius: cells nearer than this are neighbours.
        beta: power on the affinities; a higher power keeps scores nearer to where they were.
        num_steps: length of the walk. IRN's `exp_times=8` and PSA's `logt=8` are 256 steps.

    Returns:
        `(k, h, w)` of the same kind, type and device as `maps`. With `features`, values lie between the lowest and the
        highest score of `maps`; with `edges`, between those of the scores times `1 - edge`. Not differentiable.

    Raises:
        PPLTypeError: if neither or both of `edges` and `features` are given.
        PPLValueError: for shapes that do not match, values that are not finite, edges outside [0, 1], features without
            channels.

    Example:
        >>> import numpy as np
        >>> edges = np.zeros((3, 5), np.float32)
        >>> edges[:, 2] = 1.0
        >>> seed = np.zeros((1, 3, 5), np.float32)
        >>> seed[0, 1, 0] = 1.0
        >>> random_walk(edges, seed).round(2)[0, 0]  # the scores stay on their side of the edge
        array([0.17, 0.17, 0.  , 0.  , 0.  ], dtype=float32)
    """
    checked = check_parameters(random_walk, radius=radius, beta=beta, num_steps=num_steps)
    radius, beta, num_steps = checked["radius"], checked["beta"], checked["num_steps"]
    if (edges is None) == (features is None):
        raise PPLTypeError("random_walk takes either edges (h, w) or features (C, h, w): give exactly one of them")
    scores = as_tensor(maps, "maps", "k h w")
    working = scores.to(torch.float64 if scores.dtype == torch.float64 else torch.float32)
    check_finite("maps", working)
    size = tuple(scores.shape[-2:])
    with torch.no_grad():
        if edges is not None:
            boundary = as_tensor(edges, "edges", "h w").to(working)
            _check_size("edges", boundary, size)
            check_finite("edges", boundary)
            if boundary.numel() and (boundary.min() < 0 or boundary.max() > 1):
                raise PPLValueError(
                    f"edges must lie in [0, 1], got {boundary.min():.3g} to {boundary.max():.3g}: pass them through a"
                    " sigmoid or divide by their maximum"
                )
            working = working * (1.0 - boundary)
            affinity = edge_affinity(boundary, radius)
        else:
            assert features is not None
            vectors = as_tensor(features, "features", "C h w").to(working)
            _check_size("features", vectors, size)
            if not len(vectors):
                raise PPLValueError(f"features have no channels, got shape {tuple(vectors.shape)}: give at least one")
            check_finite("features", vectors)
            affinity = feature_affinity(vectors, radius)
        result = _walk(working, affinity.pow_(beta), radius, num_steps) if working.numel() else working
    return like(maps, result.to(scores.dtype))


def _check_size(name: str, given: torch.Tensor, size: tuple[int, ...]) -> None:
    if tuple(given.shape[-2:]) != size:
        raise PPLValueError(
            f"{name} have {tuple(given.shape[-2:])} cells but maps {size}: resize {name} or maps to the same cells"
        )


@lru_cache(maxsize=32)
def _chebyshev_coefficients(num_steps: int) -> tuple[float, ...]:
    """Return the coefficients of `x ** num_steps` in Chebyshev polynomials, without the smallest ones (`_TAIL`).

    `x ** n` is the mean of `T_|Y|(x)` over the end points `Y` of a fair coin's walk of `n` steps of +-1, so the
    coefficients are binomial probabilities and fall off like a Gaussian of width `sqrt(n)` (Sachdeva and Vishnoi,
    2014, section 3). The eigenvalues of the matrix lie in [-1, 1], where every `T` is bounded by 1.
    """
    log_half = -num_steps * math.log(2.0)
    coefficients = [0.0] * (num_steps + 1)
    for k in range(num_steps % 2, num_steps + 1, 2):
        ups = (num_steps + k) // 2
        log_binomial = math.lgamma(num_steps + 1) - math.lgamma(ups + 1) - math.lgamma(num_steps - ups + 1)
        coefficients[k] = math.exp(log_binomial + log_half) * (1.0 if k == 0 else 2.0)
    tail = 0.0
    while len(coefficients) > 1 and tail + coefficients[-1] < _TAIL:
        tail += coefficients.pop()
    total = sum(coefficients)  # so that constant maps do not change
    return tuple(c / total for c in coefficients)


def _walk(maps: torch.Tensor, affinity: torch.Tensor, radius: int, num_steps: int) -> torch.Tensor:
    """Average `num_steps` times over the neighbours, weighted with `affinity (D, h, w)`."""
    h, w = maps.shape[-2:]
    offsets = half_plane_offsets(radius)
    total = affinity.sum(dim=0).add_(1.0)  # a cell's affinity to itself is 1
    for values, (dy, dx) in zip(affinity, offsets, strict=True):
        here, there = _opposite(dy, dx, h, w)
        total[here] += values[there]
    scale = total.reciprocal_()
    coefficients = _chebyshev_coefficients(num_steps)
    if maps.device.type == "cpu" and maps.dtype == torch.float32:
        from ppl.refine.walk_kernel import walk  # numba loads with the first walk, not with the package

        values, weights, scales = (tensor.contiguous().numpy() for tensor in (maps, affinity, scale))
        walked = walk(values, weights, scales, np.array(offsets, np.int64), np.array(coefficients, np.float32))
        result = torch.from_numpy(walked)
    else:
        result = _walk_torch(maps, affinity, scale, offsets, coefficients)
    # Averages stay in the range of the averaged values; rounding may leave it.
    lowest, highest = maps.amin(dim=(1, 2), keepdim=True), maps.amax(dim=(1, 2), keepdim=True)
    return torch.maximum(torch.minimum(result, highest), lowest)


def _opposite(dy: int, dx: int, h: int, w: int) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Return the cells that have a neighbour at `(-dy, -dx)`, and these neighbours, which hold the pair's affinity."""
    here = slice(dy, h), slice(max(dx, 0), max(w + min(dx, 0), 0))
    there = slice(0, max(h - dy, 0)), slice(max(-dx, 0), max(w - max(dx, 0), 0))
    return here, there


def _walk_torch(
    maps: torch.Tensor,
    affinity: torch.Tensor,
    scale: torch.Tensor,
    offsets: tuple[tuple[int, int], ...],
    coefficients: tuple[float, ...],
) -> torch.Tensor:
    """Compute the same walk as the compiled kernel by shifted slices, on every device and type, in O(cells) memory."""
    h, w = maps.shape[-2:]
    current, slope = maps.clone(), torch.zeros_like(maps)
    result = coefficients[0] * maps
    for i, coefficient in enumerate(coefficients[1:], start=1):
        change = torch.zeros_like(maps)
        for values, (dy, dx) in zip(affinity, offsets, strict=True):
            here, there = ((..., *cells) for cells in _opposite(dy, dx, h, w))
            weight = values[there[1:]]
            difference = current[here] - current[there]
            change[there].addcmul_(weight, difference)
            change[here].addcmul_(weight, difference, value=-1.0)
        slope.addcmul_(change, scale, value=1.0 if i == 1 else 2.0)
        current += slope
        if coefficient:
            result.add_(current, alpha=coefficient)
    return result
