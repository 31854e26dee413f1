"""Mean field with any features, compatibilities and normalisations.

`meanfield` handles the usual case several times as fast: colours, Potts model, symmetric normalisation.
"""

# Numba infers the types of kernels.
# mypy: allow-untyped-defs

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ppl.refine.compiled import kernel
from ppl.refine.crf.config import per_axis
from ppl.refine.crf.native.hashing import Table, insert, reserve, slot_of
from ppl.refine.crf.problem import Problem

__all__ = ["mean_field_general"]

Floats = NDArray[np.float32]
_F = np.float32


def mean_field_general(problem: Problem) -> Floats:
    """Run mean-field inference on the CPU for any settings.

    Returns:
        (L, H, W) probabilities; the last plane belongs to a single copy.
    """
    config, labels = problem.config, len(problem.unary)
    smoothness, appearance = _coordinates(problem)
    terms = [
        (_Filter(smoothness, config.gaussian_normalization), config.gaussian_compat),
        (_Filter(appearance, config.bilateral_normalization), config.bilateral_compat),
    ]
    energies = np.ascontiguousarray(problem.unary.reshape(labels, -1).T)
    count = np.ones(labels, np.float32)
    count[-1] = problem.copies
    belief = _softmax(-energies, count)
    for _ in range(config.iterations):
        scores = -energies
        for lattice, compat in terms:
            scores += _gain(lattice.filter(belief), compat)
        belief = _softmax(scores, count)
    planes: Floats = np.ascontiguousarray(belief.T).reshape(problem.unary.shape)
    return planes


def _coordinates(problem: Problem) -> tuple[Floats, Floats]:
    """Return the (N, d) coordinates of all pixels for the smoothness and for the appearance kernel."""
    config = problem.config
    guide = problem.image if problem.features is None else problem.features
    height, width, channels = guide.shape
    y, x = (axis.ravel() for axis in np.mgrid[:height, :width].astype(np.float32))

    def divided(columns: list[Floats], deviations: tuple[float, ...]) -> Floats:
        return np.stack([column / _F(value) for column, value in zip(columns, deviations, strict=True)], axis=1)

    smoothness = divided([x, y], per_axis("gaussian_sxy", config.gaussian_sxy, 2))
    sx, sy = per_axis("bilateral_sxy", config.bilateral_sxy, 2)
    colours = [guide[..., channel].ravel().astype(np.float32) for channel in range(channels)]
    srgb = per_axis("bilateral_srgb", config.bilateral_srgb, channels)
    # The lattice depends on the order of the axes: these are the orders of pydensecrf.
    if problem.features is None:
        return smoothness, divided([x, y, *colours], (sx, sy, *srgb))
    return smoothness, divided([y, x, *colours], (sy, sx, *srgb))


def _gain(filtered: Floats, compat: float | tuple[Any, ...]) -> Floats:
    """Return what labels gain from their filtered probabilities."""
    if isinstance(compat, float):
        gain: Floats = filtered * np.float32(compat)
        return gain
    penalty: Floats = np.array(compat, np.float32)
    return -filtered * penalty if penalty.ndim == 1 else -filtered @ penalty


def _softmax(scores: Floats, count: Floats) -> Floats:
    """Return the softmax over labels, each of which stands for `count` labels."""
    powers: Floats = np.exp(scores - scores.max(axis=1, keepdims=True))
    result: Floats = powers / (powers @ count)[:, None]
    return result


class _Filter:
    """One kernel: splat, blur, slice, and the normalisation around them."""

    def __init__(self, coordinates: Floats, normalization: str) -> None:
        n, d = coordinates.shape
        multipliers = np.random.default_rng(0).integers(-(2**62), 2**62, d) * 2 + 1
        spread = _F(np.sqrt(2.0 / 3.0) * (d + 1))
        scales = np.array([1.0 / np.sqrt((i + 2) * (i + 1)) * float(spread) for i in range(d)], np.float32)
        # pydensecrf works on four pixels at a time and pads the last four with points at the origin.
        points = np.concatenate([coordinates, np.zeros((int(n % 4 > 0), d), np.float32)])
        self.vertices, self.weights, self.neighbours = _embed(
            points, scales, multipliers, Table.empty(len(points) * (d + 1))
        )
        self.pixels = n
        mass = self._apply(np.ones((n, 1), np.float32)) + _F(1e-20)
        one = np.ones_like(mass)
        self.before, self.after = {
            "symmetric": (1 / np.sqrt(mass), 1 / np.sqrt(mass)),
            "before": (1 / mass, one),
            "after": (one, 1 / mass),
            "none": (one, one),
        }[normalization]

    def filter(self, rows: Floats) -> Floats:
        """Return the filtered (N, L) rows."""
        filtered: Floats = self._apply(rows * self.before) * self.after
        return filtered

    def _apply(self, rows: Floats) -> Floats:
        result = np.empty_like(rows)
        _splat_blur_slice(rows, self.vertices[: self.pixels], self.weights[: self.pixels], self.neighbours, result)
        return result


@kernel(cached=True)
def _embed(points, scales, multipliers, table):
    """Embed points into the permutohedral lattice.

    The code of a vertex is a product of its coordinates with random numbers, modulo 2^64: two of a million vertices
    have the same code with probability 3e-8, and neighbours lie at fixed distances.

    Args:
        points: (N, d) float32.
        scales: (d,) float32, of the embedding.
        multipliers: (d,) int64.
        table: an empty table with room for N (d+1) vertices.

    Returns:
        The vertices of each point (N, d+1) int32, their weights (N, d+1) float32, and the vertices before and after
        each of the M vertices along each axis (d+1, M, 2) int32, where M stands for none.
    """
    n, d = points.shape
    vertices, weights = np.empty((n, d + 1), np.int32), np.empty((n, d + 1), np.float32)
    slots, codes = table
    count = np.int64(0)
    elevated, cell = np.empty(d + 1, np.float32), np.empty(d + 1, np.float32)
    residual, by_rank = np.empty(d + 1, np.float32), np.empty(d + 1, np.float32)
    rank = np.empty(d + 1, np.int64)
    size = _F(d + 1)
    inverse = _F(1) / size
    for p in range(n):
        running = _F(0)
        for j in range(d, 0, -1):
            term = points[p, j - 1] * scales[j - 1]
            elevated[j] = running - _F(j) * term
            running += term
        elevated[0] = running
        # The nearest point whose coordinates are all multiples of d+1.
        excess = np.int64(0)
        for i in range(d + 1):
            cell[i] = np.rint(elevated[i] * inverse)
            excess += np.int64(cell[i])
            residual[i] = elevated[i] - cell[i] * size
            rank[i] = 0
        for i in range(d):
            for j in range(i + 1, d + 1):
                if residual[i] < residual[j]:
                    rank[i] += 1
                else:
                    rank[j] += 1
        # Coordinates that do not sum to zero lie off the plane; those of extreme rank are moved back by one cell.
        for i in range(d + 1):
            rank[i] += excess
            step = 1 if rank[i] < 0 else (-1 if rank[i] > d else 0)
            rank[i] += step * (d + 1)
            cell[i] += _F(step)
            by_rank[d - rank[i]] = (elevated[i] - cell[i] * size) * inverse
        slots = reserve(slots, codes, count, np.int64(d + 1))
        for k in range(d + 1):
            weights[p, k] = by_rank[k] - by_rank[k - 1] if k else by_rank[0] + (_F(1) - by_rank[d])
            code = np.int64(0)
            for i in range(d):
                code += (np.int64(cell[i]) * (d + 1) + (k if rank[i] <= d - k else k - (d + 1))) * multipliers[i]
            vertex = insert(code, slots, codes, count)
            vertices[p, k] = vertex
            count = max(count, vertex + 1)
    neighbours = np.empty((d + 1, count, 2), np.int32)
    neighbours[:] = count
    mask = len(slots) - 1
    every = np.int64(0)
    for i in range(d):
        every += multipliers[i]
    for j in range(d + 1):
        step = every - (multipliers[j] * (d + 1) if j < d else 0)
        for vertex in range(count):
            slot = slot_of(codes[vertex] + step, mask)
            while slots[slot] >= 0 and codes[slots[slot]] != codes[vertex] + step:
                slot = (slot + 1) & mask
            if slots[slot] >= 0:
                neighbours[j, vertex, 0] = slots[slot]
                neighbours[j, slots[slot], 1] = vertex
    return vertices, weights, neighbours


@kernel(cached=True, fused=True)
def _splat_blur_slice(rows, vertices, weights, neighbours, result):
    """Filter (N, L) rows; row M of the values stands for missing neighbours and stays zero."""
    n, labels = rows.shape
    corners, count = neighbours.shape[:2]
    values, blurred = np.zeros((count + 1, labels), np.float32), np.zeros((count + 1, labels), np.float32)
    for p in range(n):
        source = rows[p]
        for k in range(corners):
            weight, target = weights[p, k], values[vertices[p, k]]
            for label in range(labels):
                target[label] += weight * source[label]
    for j in range(corners):
        for vertex in range(count):
            before, after = values[neighbours[j, vertex, 0]], values[neighbours[j, vertex, 1]]
            here, target = values[vertex], blurred[vertex]
            for label in range(labels):
                target[label] = here[label] + _F(0.5) * (before[label] + after[label])
        values, blurred = blurred, values
    alpha = _F(1) / (_F(1) + _F(2) ** _F(1 - corners))
    for p in range(n):
        target = result[p]
        target[:] = 0
        for k in range(corners):
            weight, source = weights[p, k] * alpha, values[vertices[p, k]]
            for label in range(labels):
                target[label] += weight * source[label]
