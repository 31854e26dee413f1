"""The permutohedral lattice of an image: the vertices that each pixel touches, their weights and their neighbours.

A point of d features lies in one simplex of the lattice and touches the simplex's d+1 vertices with barycentric weights
(Adams, Baek and Davis, Eurographics 2010). Written with integers, the vertices of a simplex are a - [i in m_k] for
k = 0..d, where the d+1 coordinates of `a` name a *cell* and m_0, m_1, .. m_d are growing sets of coordinates, in the
order of the point's residuals; k is minus the sum of the coordinates. A vertex is therefore (cell, m), its code a
number in mixed radix, and its neighbours lie at fixed distances of that code.

Pixels are visited tile by tile, and within a tile sorted by simplex (a *group*), because the sweeps of the mean field
then touch each vertex once per group and stay inside the fast caches.
"""

# Numba infers the types of kernels.
# mypy: allow-untyped-defs

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ppl.refine.compiled import kernel
from ppl.refine.crf.native.embedding import embed
from ppl.refine.crf.native.hashing import Table, insert, reserve, slot_of

__all__ = ["LONGEST", "TILE", "Touched", "build"]

TILE = 64
"""Side of a tile in pixels, a power of two, so that a mask does for the modulus in the hash tables of a tile."""

LONGEST = 64
"""Most pixels in a group, so that the rows of a group stay in the first-level cache."""

_ROOM = TILE * TILE
_SLOTS = 2 * _ROOM


class _Scratch(NamedTuple):
    """Arrays that one stage of a tile fills for the next stages."""

    work: Any
    codes: Any
    orders: Any
    simplex_of: Any
    cell_slots: Any
    simplex_slots: Any
    cell_codes: Any
    cell_of: Any
    simplex_orders: Any
    pairs: Any
    fresh: Any
    local: Any


@kernel()
def _number(n, scratch):
    """Number the distinct cells and simplices of a tile by first use; return how many there are of each.

    The tables are twice as long as a tile and need not grow.
    """
    codes, orders, simplex_of = scratch.codes, scratch.orders, scratch.simplex_of
    cell_slots, simplex_slots, cell_codes = scratch.cell_slots, scratch.simplex_slots, scratch.cell_codes
    cell_of, simplex_orders = scratch.cell_of, scratch.simplex_orders
    cell_slots[:] = -1
    simplex_slots[:] = -1
    cells = 0
    simplices = 0
    cell = np.int64(-1)
    previous = np.int64(-1)
    for p in range(n):
        code = codes[p]
        if code != previous:
            previous = code
            slot = slot_of(code, _SLOTS - 1)
            while True:
                cell = np.int64(cell_slots[slot])
                if cell < 0:
                    cell = cells
                    cell_slots[slot] = cell
                    cell_codes[cell] = code
                    cells += 1
                    break
                if cell_codes[cell] == code:
                    break
                slot = (slot + 1) & (_SLOTS - 1)
        order = orders[p]
        slot = slot_of(np.int64(order) * _ROOM + cell, _SLOTS - 1)
        while True:
            simplex = np.int64(simplex_slots[slot])
            if simplex < 0:
                simplex = simplices
                simplex_slots[slot] = simplex
                cell_of[simplex] = cell
                simplex_orders[simplex] = order
                simplices += 1
                break
            if simplex_orders[simplex] == order and cell_of[simplex] == cell:
                break
            slot = (slot + 1) & (_SLOTS - 1)
        simplex_of[p] = simplex
    return cells, simplices


@kernel()
def _resolve(cells, simplices, offsets, slots, codes, count, scratch):
    """Find the vertices of every simplex of a tile; return how many vertices there are now.

    `pairs` becomes the vertices, d+1 for each simplex; new vertices are numbered by first use. The loops are split so
    that most have no unpredictable branch: the pairs (cell, set) of all simplices, the distinct pairs, those found at
    the first probe of the hash table, the rest.
    """
    pairs, fresh, local, cell_codes = scratch.pairs, scratch.fresh, scratch.local, scratch.cell_codes
    mask = len(slots) - 1
    sets = len(offsets)
    corners = 0
    while 1 << corners < sets:
        corners += 1
    local[: cells * sets] = -1
    filled = 0
    for simplex in range(simplices):
        base = scratch.cell_of[simplex] * sets
        order = np.int64(scratch.simplex_orders[simplex]) << 6
        for k in range(corners):
            pairs[filled] = base + ((order >> (6 * k)) & 63)
            filled += 1
    distinct = 0
    for i in range(filled):
        pair = pairs[i]
        fresh[distinct] = pair
        distinct += np.int64(local[pair] == -1)
        local[pair] = -2
    missed = 0
    for i in range(distinct):
        pair = np.int64(fresh[i])
        code = cell_codes[pair >> corners] + offsets[pair & (sets - 1)]
        vertex = slots[slot_of(code, mask)]
        local[pair] = vertex
        fresh[missed] = pair
        missed += np.int64((vertex < 0) | (codes[max(vertex, 0)] != code))
    for i in range(missed):
        pair = np.int64(fresh[i])
        vertex = insert(cell_codes[pair >> corners] + offsets[pair & (sets - 1)], slots, codes, count)
        local[pair] = vertex
        count = max(count, vertex + 1)
    for i in range(filled):
        pairs[i] = local[pairs[i]]
    return count


@kernel()
def _add_origin(axes, slots, codes, count):
    """Add the vertices that a point at the origin touches; return how many vertices there are now."""
    corners = len(axes.strides)
    base = np.int64(0)
    for i in range(corners):
        base -= axes.lows[i] * axes.strides[i]
    for k in range(corners):
        # All residuals tie, so that the last k coordinates make the set m_k.
        members = ((1 << k) - 1) << (corners - k)
        count = max(count, insert(base + axes.offsets[members], slots, codes, count) + 1)
    return count


class Touched(NamedTuple):
    """Which vertices the N pixels of an image touch, in the order of tiles and groups.

    Attributes:
        order: (N,) int32, the pixel at each position.
        starts: (S+1,) int32, where each group of pixels that share a 5-D simplex begins.
        group_vertices: (S, 6) int32, the 5-D vertices of each group.
        group_weights: (N, 6) float32, their weights at each position.
        point_vertices: (N, 3) int32, the 2-D vertices of each position.
        point_weights: (N, 3) float32, their weights.
    """

    order: Any
    starts: Any
    group_vertices: Any
    group_weights: Any
    point_vertices: Any
    point_weights: Any

    @classmethod
    def empty(cls, n: int) -> Touched:
        """Return arrays with room for `n` groups: memory that is never touched is never handed out."""
        return cls(
            np.empty(n, np.int32), np.empty(n + 1, np.int32), np.empty((n, 6), np.int32),
            np.empty((n, 6), np.float32), np.empty((n, 3), np.int32), np.empty((n, 3), np.float32),
        )  # fmt: skip


@kernel(cached=True)
def build(image, colour, space, colour_table, space_table, touched):
    """Build both lattices of an image.

    Args:
        image: (H, W, 3) uint8.
        colour: the axes of the 5-D lattice.
        space: the axes of the 2-D lattice.
        colour_table: an empty table with room for the vertices that N pixels and the origin touch, 6 each.
        space_table: an empty table with room for 3 vertices each.
        touched: is filled in.

    Returns:
        The number of groups, and the tables of the vertices of the 5-D and the 2-D lattice.
    """
    height, width = image.shape[:2]
    n = height * width
    order, starts, group_vertices, group_weights, point_vertices, point_weights = touched
    colour_slots, colour_codes = colour_table
    space_slots, space_codes = space_table
    colours = spaces = np.int64(0)
    scratch = _Scratch(
        np.empty((6, 6, _ROOM), np.float32), np.empty(_ROOM, np.int64), np.empty(_ROOM, np.int32),
        np.empty(_ROOM, np.int32), np.empty(_SLOTS, np.int32), np.empty(_SLOTS, np.int32), np.empty(_ROOM, np.int64),
        np.empty(_ROOM, np.int32), np.empty(_ROOM, np.int32), np.empty(_ROOM * 6, np.int32),
        np.empty(_ROOM * 6 + 1, np.int32), np.empty(_ROOM * 64, np.int32),
    )  # fmt: skip
    begins, positions = np.empty(_ROOM + 1, np.int32), np.empty(_ROOM, np.int32)
    simplex_of, vertices, weights = scratch.simplex_of, scratch.pairs, scratch.work[5]
    groups = done = 0
    for top in range(0, height, TILE):
        for left in range(0, width, TILE):
            rows, columns = min(TILE, height - top), min(TILE, width - left)
            pixels = rows * columns
            colour_slots = reserve(colour_slots, colour_codes, colours, pixels * 6)
            space_slots = reserve(space_slots, space_codes, spaces, pixels * 3)

            embed(colour, image, top, left, rows, columns, scratch)
            cells, simplices = _number(pixels, scratch)
            colours = _resolve(cells, simplices, colour.offsets, colour_slots, colour_codes, colours, scratch)
            begins[: simplices + 1] = 0
            for p in range(pixels):
                begins[simplex_of[p] + 1] += 1
            for simplex in range(simplices):
                size = begins[simplex + 1]
                begins[simplex + 1] = begins[simplex] + size
                for part in range(0, size, LONGEST):
                    starts[groups] = done + begins[simplex] + part
                    for k in range(6):
                        group_vertices[groups, k] = vertices[simplex * 6 + k]
                    groups += 1
            p = 0
            for row in range(rows):
                pixel = (top + row) * width + left
                for column in range(columns):
                    simplex = simplex_of[p]
                    position = done + begins[simplex]
                    begins[simplex] += 1
                    positions[p] = position
                    order[position] = pixel + column
                    for k in range(6):
                        group_weights[position, k] = weights[k, p]
                    p += 1

            embed(space, image, top, left, rows, columns, scratch)
            cells, simplices = _number(pixels, scratch)
            spaces = _resolve(cells, simplices, space.offsets, space_slots, space_codes, spaces, scratch)
            for p in range(pixels):
                position = np.int64(positions[p])
                for k in range(3):
                    point_vertices[position, k] = vertices[simplex_of[p] * 3 + k]
                    point_weights[position, k] = weights[k, p]
            done += pixels
    starts[groups] = n
    if n % 4:
        # pydensecrf works on four pixels at a time and pads the last four with points at the origin.
        colour_slots = reserve(colour_slots, colour_codes, colours, np.int64(6))
        space_slots = reserve(space_slots, space_codes, spaces, np.int64(3))
        colours = _add_origin(colour, colour_slots, colour_codes, colours)
        spaces = _add_origin(space, space_slots, space_codes, spaces)
    return groups, Table(colour_slots, colour_codes[:colours]), Table(space_slots, space_codes[:spaces])
