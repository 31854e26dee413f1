"""The embedding of pixels into the permutohedral lattice: `lattice` explains the terms."""

# Numba infers the types of kernels.
# mypy: allow-untyped-defs

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ppl.refine.compiled import kernel

__all__ = ["Axes", "axes", "embed"]


class Axes(NamedTuple):
    """The contributions of the axes of one lattice to coordinates and codes.

    Attributes:
        tables: (d, longest) float32, the lattice coordinate that each integer value of a feature adds.
        lows: (d+1,) int64, the lowest value of each cell coordinate.
        strides: (d+1,) int64, the stride of each cell coordinate in a code; coordinate 0 follows from the others.
        offsets: (2^(d+1),) int64, what each set of coordinates adds to the code of a cell to make the code of a vertex.
    """

    tables: Any
    lows: Any
    strides: Any
    offsets: Any


def axes(extents: Sequence[int], deviations: Sequence[float]) -> Axes:
    """Return the axes of a lattice, rounded step by step as pydensecrf rounds.

    Args:
        extents: number of integer values of each feature: image width, height, 256, ...
        deviations: standard deviation of each feature.

    Raises:
        OverflowError: if the cells do not fit into 63 bits.
    """
    d = len(extents)
    spread = np.float32(np.sqrt(2.0 / 3.0) * (d + 1))
    tables = np.zeros((d, max(extents)), np.float32)
    for i, (extent, deviation) in enumerate(zip(extents, deviations, strict=True)):
        scale = np.float32(1.0 / np.sqrt((i + 2) * (i + 1)) * float(spread))
        tables[i, :extent] = np.arange(extent, dtype=np.float32) / np.float32(deviation) * scale
    reach = tables.max(axis=1).astype(np.float64)
    lows, strides = np.zeros(d + 1, np.int64), np.zeros(d + 1, np.int64)
    stride = 8  # the lowest three bits hold k
    for j in range(1, d + 1):
        # Rounding may move a cell by one, a vertex and its neighbours by two more.
        low = int(np.floor(-j * reach[j - 1] / (d + 1))) - 4
        high = int(np.ceil(reach[j:].sum() / (d + 1))) + 4
        lows[j], strides[j] = low, stride
        stride *= high - low + 1
        if stride >= 2**62:
            raise OverflowError("the lattice coordinates of this image do not fit into 63 bits")
    members = np.arange(1 << (d + 1))[:, None] >> np.arange(d + 1) & 1
    return Axes(tables, lows, strides, members @ (1 - strides))


@kernel()
def embed(axes, image, top, left, rows, columns, scratch):
    """Find the cell, the coordinate order and the barycentric weights of every pixel of a tile.

    All loops run over pixels innermost so that they become vector code. `codes` becomes the code of each pixel's cell,
    `orders` the sets m_1 .. m_d with six bits each, `work[5, k]` the weights.
    """
    d = len(axes.tables)
    n = rows * columns
    work, codes, orders = scratch.work, scratch.codes[:n], scratch.orders[:n]
    running, term, excess = work[3, 0, :n], work[3, 1, :n], work[3, 2, :n]
    running[:] = 0
    excess[:] = 0
    codes[:] = 0
    orders[:] = 0
    for j in range(d, 0, -1):
        table = axes.tables[j - 1]
        for row in range(rows):
            part = term[row * columns : (row + 1) * columns]
            if j == 1:
                for column in range(columns):
                    part[column] = table[left + column]
            elif j == 2:
                part[:] = table[top + row]
            else:
                for column in range(columns):
                    part[column] = table[image[top + row, left + column, j - 3]]
        factor = np.float32(j)
        elevated = work[0, j, :n]
        for p in range(n):
            elevated[p] = running[p] - factor * term[p]
            running[p] += term[p]
    elevated = work[0, 0, :n]
    for p in range(n):
        elevated[p] = running[p]
    # The nearest point whose coordinates are all multiples of d+1; the constant rounds ties to even, as SSE does.
    size = np.float32(d + 1)
    inverse = np.float32(1) / size
    magic = np.float32(12582912.0)
    zero, one = np.float32(0), np.float32(1)
    for i in range(d + 1):
        elevated, cell, rank = work[0, i, :n], work[1, i, :n], work[2, i, :n]
        for p in range(n):
            rounded = (inverse * elevated[p] + magic) - magic
            cell[p] = rounded
            excess[p] += rounded
            rank[p] = zero
    for i in range(d):
        for j in range(i + 1, d + 1):
            elevated, cell, rank = work[0, i, :n], work[1, i, :n], work[2, i, :n]
            elevated_j, cell_j, rank_j = work[0, j, :n], work[1, j, :n], work[2, j, :n]
            for p in range(n):
                behind = elevated[p] - cell[p] * size < elevated_j[p] - cell_j[p] * size
                rank[p] += one if behind else zero
                rank_j[p] += zero if behind else one
    # Coordinates that do not sum to zero lie off the plane; those of extreme rank are moved back by one cell.
    work[4, : d + 1, :n] = 0
    pattern = np.int32(0b000001_000001_000001_000001_000001)
    for i in range(d + 1):
        elevated, cell, rank = work[0, i, :n], work[1, i, :n], work[2, i, :n]
        low, stride = axes.lows[i], axes.strides[i]
        for p in range(n):
            value = rank[p] + excess[p]
            step = one if value < zero else (-one if value >= size else zero)
            rank[p] = value + step * size
            cell[p] += step
        for p in range(n):
            codes[p] += (np.int64(cell[p]) - low) * stride
            shift = 6 * (d - np.int32(rank[p]))
            orders[p] |= ((pattern << shift) & 0x3FFFFFFF) << i
        for k in range(d + 1):
            wanted = np.float32(d - k)
            by_rank = work[4, k, :n]
            for p in range(n):
                residual = (elevated[p] - cell[p] * size) * inverse
                by_rank[p] += residual if rank[p] == wanted else zero
    # A weight is the difference between the residuals of neighbouring ranks, cyclically.
    for k in range(d + 1):
        by_rank, before, weights = work[4, k, :n], work[4, d if k == 0 else k - 1, :n], work[5, k, :n]
        extra = one if k == 0 else zero
        for p in range(n):
            weights[p] = by_rank[p] + (extra - before[p])
