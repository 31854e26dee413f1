"""The permutohedral lattice of an image: the vertices that each pixel touches, their weights and their neighbours.

A point of d features lies in one simplex of the lattice, whose d+1 vertices it touches with barycentric weights
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

from typing import Any

import numpy as np

from ppl.refine.crf.native.compile import kernel

__all__ = [
    "TILE",
    "chains",
    "code_strides",
    "coordinate_tables",
    "embed",
    "group",
    "insert",
    "place",
    "rehash",
    "resolve",
    "set_offsets",
    "sort",
]

TILE = 64
"""Side of a tile in pixels, a power of two: hash tables of a tile have twice its pixels and a mask for a modulus."""

_MIX = -7046029254386353131  # 2^64 / golden ratio, odd, as a signed number: the multiplier of the hash


def coordinate_tables(extents: list[int], deviations: list[float]) -> Any:
    """The lattice coordinate that each feature adds, for each of its integer values.

    Args:
        extents: how many values each feature takes: image width, height, 256, ...
        deviations: its standard deviation.

    Returns:
        (d, max(extents)) float32, rounded step by step as pydensecrf rounds.
    """
    d = len(extents)
    spread = np.float32(np.sqrt(2.0 / 3.0) * (d + 1))
    tables = np.zeros((d, max(extents)), np.float32)
    for i, (extent, deviation) in enumerate(zip(extents, deviations, strict=True)):
        scale = np.float32(1.0 / np.sqrt((i + 2) * (i + 1)) * float(spread))
        tables[i, :extent] = np.arange(extent, dtype=np.float32) / np.float32(deviation) * scale
    return tables


def code_strides(tables: Any) -> Any:
    """Lowest value and stride of each cell coordinate in the mixed-radix code; coordinate 0 follows from the others.

    Args:
        tables: from `coordinate_tables`.

    Returns:
        (2, d+1) int64: the lows, the strides.

    Raises:
        OverflowError: if the cells do not fit into 63 bits.
    """
    d = len(tables)
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
    return np.stack([lows, strides])


@kernel
def embed(tables, image, top, left, rows, columns, lows, strides, work, codes, orders):
    """Cell, coordinate order and barycentric weights of every pixel of a tile.

    All loops run over pixels innermost so that they become vector code.

    What it takes:
        tables: (d, extent) from `coordinate_tables`.
        image: (H, W, 3) uint8.
        top, left, rows, columns: the tile.
        lows, strides: from `code_strides`.
        work: (6, 8, pixels) float32 scratch; the weights are left in work[5, k].
        codes: (pixels,) int64, becomes the code of the cell.
        orders: (pixels,) int32, becomes the sets m_1 .. m_d, six bits each.
    """
    d = tables.shape[0]
    n = rows * columns
    elevated, cell, rank, by_rank, weights = work[0], work[1], work[2], work[4], work[5]
    running, term, excess = work[3, 0], work[3, 1], work[3, 2]
    for p in range(n):
        running[p] = 0
        excess[p] = 0
        codes[p] = 0
        orders[p] = 0
    for j in range(d, 0, -1):
        for row in range(rows):
            at = row * columns
            if j == 1:
                for column in range(columns):
                    term[at + column] = tables[0, left + column]
            elif j == 2:
                for column in range(columns):
                    term[at + column] = tables[1, top + row]
            else:
                for column in range(columns):
                    term[at + column] = tables[j - 1, image[top + row, left + column, j - 3]]
        factor = np.float32(j)
        for p in range(n):
            elevated[j, p] = running[p] - factor * term[p]
            running[p] += term[p]
    for p in range(n):
        elevated[0, p] = running[p]
    # The nearest point whose coordinates are all multiples of d+1; the constant rounds ties to even, as SSE does.
    size = np.float32(d + 1)
    inverse = np.float32(1.0) / size
    magic = np.float32(12582912.0)
    for i in range(d + 1):
        for p in range(n):
            rounded = (inverse * elevated[i, p] + magic) - magic
            cell[i, p] = rounded
            excess[p] += rounded
            rank[i, p] = 0
    for i in range(d):
        for j in range(i + 1, d + 1):
            for p in range(n):
                behind = elevated[i, p] - cell[i, p] * size < elevated[j, p] - cell[j, p] * size
                rank[i, p] += np.float32(1.0) if behind else np.float32(0.0)
                rank[j, p] += np.float32(0.0) if behind else np.float32(1.0)
    # Coordinates that do not sum to zero lie off the plane; those of extreme rank are moved back by one cell.
    for k in range(d + 1):
        for p in range(n):
            by_rank[k, p] = 0
    pattern = np.int32(0b000001_000001_000001_000001_000001)
    for i in range(d + 1):
        low, stride = lows[i], strides[i]
        for p in range(n):
            value = rank[i, p] + excess[p]
            step = np.float32(1.0) if value < 0 else (np.float32(-1.0) if value >= size else np.float32(0.0))
            rank[i, p] = value + step * size
            cell[i, p] += step
        for p in range(n):
            codes[p] += (np.int64(cell[i, p]) - low) * stride
            shift = np.int32(6) * (np.int32(d) - np.int32(rank[i, p]))
            orders[p] |= ((pattern << shift) & np.int32(0x3FFFFFFF)) << np.int32(i)
        for k in range(d + 1):
            wanted = np.float32(d - k)
            for p in range(n):
                residual = (elevated[i, p] - cell[i, p] * size) * inverse
                by_rank[k, p] += residual if rank[i, p] == wanted else np.float32(0.0)
    # A weight is the difference between the residuals of neighbouring ranks, cyclically.
    for k in range(d + 1):
        before = d if k == 0 else k - 1
        one = np.float32(1.0) if k == 0 else np.float32(0.0)
        for p in range(n):
            weights[k, p] = by_rank[k, p] + (one - by_rank[before, p])


@kernel
def group(n, codes, orders, cell_table, simplex_table, simplex_of, cell_codes, cell_of, simplex_orders):
    """Number the distinct cells and simplices of a tile by first use; return how many there are of each.

    The tables are twice as long as a tile and need not grow.
    """
    mask = cell_table.size - 1
    for slot in range(mask + 1):
        cell_table[slot] = -1
        simplex_table[slot] = -1
    cells = np.int32(0)
    simplices = np.int32(0)
    cell = np.int32(-1)
    previous = np.int64(-1)
    for p in range(n):
        code = codes[p]
        if code != previous:
            previous = code
            slot = ((code * _MIX) >> 32) & mask
            while True:
                cell = cell_table[slot]
                if cell < 0:
                    cell = cells
                    cell_table[slot] = cell
                    cell_codes[cell] = code
                    cells += np.int32(1)
                    break
                if cell_codes[cell] == code:
                    break
                slot = (slot + 1) & mask
        order = orders[p]
        slot = (((np.int64(order) * 4096 + cell) * _MIX) >> 32) & mask
        while True:
            simplex = simplex_table[slot]
            if simplex < 0:
                simplex = simplices
                simplex_table[slot] = simplex
                cell_of[simplex] = cell
                simplex_orders[simplex] = order
                simplices += np.int32(1)
                break
            if simplex_orders[simplex] == order and cell_of[simplex] == cell:
                break
            slot = (slot + 1) & mask
        simplex_of[p] = simplex
    return cells, simplices


@kernel
def insert(code, table, vertex_codes, count):
    """The vertex of this code; a new one gets the number `count`."""
    mask = table.size - 1
    slot = ((code * _MIX) >> 32) & mask
    while table[slot] >= 0:
        if vertex_codes[table[slot]] == code:
            return np.int64(table[slot])
        slot = (slot + 1) & mask
    table[slot] = count
    vertex_codes[count] = code
    return count


@kernel
def resolve(cells, simplices, corners, cell_of, simplex_orders, cell_codes, offsets, local, pairs, fresh, table,
            vertex_codes, count):  # fmt: skip
    """Vertex numbers of every simplex of a tile; new vertices are numbered by first use.

    The loops are split so that most have no unpredictable branch: the pairs (cell, set) of all simplices, the distinct
    ones among them, those found at the first probe of the hash table, the rest.

    What it takes:
        cells, simplices: from `group`; corners: d + 1.
        cell_of, simplex_orders, cell_codes: from `group`.
        offsets: from `set_offsets`.
        local: scratch, 2^corners per cell.
        pairs: becomes the vertices, `corners` for each simplex.
        fresh: scratch, as many as `pairs`.
        table, vertex_codes: hash table and codes, with room for all that a tile may add; count: vertices so far.

    Returns:
        How many vertices there are now.
    """
    sets = 1 << corners
    for i in range(cells * sets):
        local[i] = -1
    filled = 0
    for simplex in range(simplices):
        base = cell_of[simplex] * sets
        order = np.int64(simplex_orders[simplex]) << 6
        for k in range(corners):
            pairs[filled] = base + ((order >> (6 * k)) & 63)
            filled += 1
    distinct = 0
    for i in range(filled):
        pair = pairs[i]
        fresh[distinct] = pair
        distinct += int(local[pair] == -1)
        local[pair] = -2
    mask = table.size - 1
    missed = 0
    for i in range(distinct):
        pair = fresh[i]
        code = cell_codes[pair >> corners] + offsets[pair & (sets - 1)]
        vertex = table[((code * _MIX) >> 32) & mask]
        local[pair] = vertex
        fresh[missed] = pair
        missed += int((vertex < 0) | (vertex_codes[max(vertex, 0)] != code))
    for i in range(missed):
        pair = fresh[i]
        code = cell_codes[pair >> corners] + offsets[pair & (sets - 1)]
        local[pair] = insert(code, table, vertex_codes, count)
        count = max(count, local[pair] + 1)
    for i in range(filled):
        pairs[i] = local[pairs[i]]
    return count


@kernel
def rehash(vertex_codes, count, table):
    """Move the first `count` vertices into a larger table."""
    mask = table.size - 1
    for slot in range(mask + 1):
        table[slot] = -1
    for vertex in range(count):
        slot = ((vertex_codes[vertex] * _MIX) >> 32) & mask
        while table[slot] >= 0:
            slot = (slot + 1) & mask
        table[slot] = vertex


@kernel
def sort(top, left, rows, columns, width, done, groups, simplices, simplex_of, vertices, weights, begins, positions,
         longest, order, starts, group_vertices, group_weights):  # fmt: skip
    """Give the pixels of a tile their positions, simplex after simplex; return how many groups there are now."""
    for simplex in range(simplices + 1):
        begins[simplex] = 0
    for p in range(rows * columns):
        begins[simplex_of[p] + 1] += 1
    for simplex in range(simplices):
        size = begins[simplex + 1]
        begins[simplex + 1] = begins[simplex] + size
        for part in range(0, size, longest):
            starts[groups] = done + begins[simplex] + part
            for k in range(6):
                group_vertices[groups * 6 + k] = vertices[simplex * 6 + k]
            groups += 1
    p = 0
    for row in range(rows):
        pixel = (top + row) * width + left
        for _ in range(columns):
            simplex = simplex_of[p]
            position = done + begins[simplex]
            begins[simplex] += 1
            positions[p] = position
            order[position] = pixel
            for k in range(6):
                group_weights[position * 6 + k] = weights[k, p]
            p += 1
            pixel += 1
    return groups


@kernel
def place(n, simplex_of, vertices, weights, positions, point_vertices, point_weights):
    """Copy the 2-D vertices and weights of a tile's pixels to the positions that `sort` gave them."""
    for p in range(n):
        at = np.int64(positions[p]) * 3
        simplex = simplex_of[p]
        for k in range(3):
            point_vertices[at + k] = vertices[simplex * 3 + k]
            point_weights[at + k] = weights[k, p]


def set_offsets(strides: Any) -> Any:
    """What each set of coordinates adds to the code of a cell to make that of a vertex."""
    members = np.arange(1 << len(strides))[:, None] >> np.arange(len(strides)) & 1
    return members @ (1 - strides)


@kernel
def chains(vertex_codes, count, table, strides, after, unsettled, headed, links, ends):
    """String the vertices of a lattice into chains of neighbours, for each of its d+1 axes.

    A blur along an axis mixes a vertex with the one before and the one after it. Along a chain it works in place with
    one load and one store per vertex, and a vertex without neighbours is in no chain.

    What it takes:
        vertex_codes, count, table: the vertices and their hash table.
        strides: from `code_strides`.
        after, unsettled: (count + 1,) int32 scratch; headed: (count + 1,) bool scratch.
        links: becomes the vertices of all chains, axis after axis, each chain closed by `count`, which is no vertex.
        ends: (d+2,) becomes where the links of each axis begin and end.
    """
    axes = strides.size
    mask = table.size - 1
    every = np.int64(0)
    for j in range(axes):
        every += strides[j]
    filled = 0
    for j in range(axes):
        # One more in every coordinate where k, the lowest three bits, would reach d+1.
        step, wrap = 1 - strides[j], every - strides[j] - (axes - 1)
        for vertex in range(count):
            headed[vertex] = False
        missed = 0
        for vertex in range(count):
            code = vertex_codes[vertex]
            code += step if (code & 7) < axes - 1 else wrap
            neighbour = table[((code * _MIX) >> 32) & mask]
            after[vertex] = neighbour
            unsettled[missed] = vertex
            missed += int((neighbour >= 0) & (vertex_codes[max(neighbour, 0)] != code))
        for i in range(missed):
            vertex = unsettled[i]
            code = vertex_codes[vertex]
            code += step if (code & 7) < axes - 1 else wrap
            slot = ((code * _MIX) >> 32) & mask
            neighbour = table[slot]
            while neighbour >= 0 and vertex_codes[neighbour] != code:
                slot = (slot + 1) & mask
                neighbour = table[slot]
            after[vertex] = neighbour
        for vertex in range(count):
            headed[after[vertex]] = True  # no neighbour is -1: the last element, which is no vertex
        for vertex in range(count):
            if not headed[vertex] and after[vertex] >= 0:
                link = np.int32(vertex)
                while link >= 0:
                    links[filled] = link
                    filled += 1
                    link = after[link]
                links[filled] = count
                filled += 1
        ends[j + 1] = filled
    return filled
