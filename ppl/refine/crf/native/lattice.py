"""The permutohedral lattice of an image: the vertices that each pixel touches, their weights and their neighbours.

A point of d features lies in one simplex of the lattice, whose d+1 vertices it touches with barycentric weights
(Adams, Baek and Davis, Eurographics 2010). Written with integers, the vertices of a simplex are a - [i in m_k] for
k = 0..d, where the d+1 coordinates of `a` name a *cell* and m_0, m_1, .. m_d are growing sets of coordinates, in the
order of the point's residuals; k is minus the sum of the coordinates. A vertex is therefore (cell, m), its code a
number in mixed radix, and its neighbours lie at fixed distances of that code.

Pixels are visited tile by tile, and within a tile sorted by simplex (a *group*), because the sweeps of the mean field
then touch each vertex once per group and stay inside the fast caches.
"""

# Kernels are typed by their decorators.
# mypy: allow-untyped-defs

from __future__ import annotations

from typing import Any

import numpy as np

from ppl.refine.kernel import kernel
from ppl.refine.kernel.operations import f32, i32, i64, maximum

__all__ = ["LONGEST", "TILE", "chains", "code_strides", "coordinate_tables", "insert", "rehash", "set_offsets", "visit"]

TILE = 64
"""Side of a tile in pixels, a power of two: hash tables of a tile have twice its pixels and a mask for a modulus."""

LONGEST = 64
"""Pixels in a group at most, so that the rows of a group stay in the first-level cache."""

_ROOM = TILE * TILE
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


def set_offsets(strides: Any) -> Any:
    """What each set of coordinates adds to the code of a cell to make that of a vertex."""
    members = np.arange(1 << len(strides))[:, None] >> np.arange(len(strides)) & 1
    return members @ (1 - strides)


@kernel(f32="tables work", u8="image", i64="lows strides codes", i32="orders")
def embed(d, tables, extent, image, width, top, left, rows, columns, lows, strides, work, codes, orders):
    """Cell, coordinate order and barycentric weights of every pixel of a tile.

    All loops run over pixels innermost so that they become vector code.

    What it takes:
        d, tables, extent: the number of features, (d, extent) from `coordinate_tables`.
        image, width: (H, width, 3).
        top, left, rows, columns: the tile.
        lows, strides: from `code_strides`.
        work: (6, 8, _ROOM) scratch; the weights are left in work[5, k].
        codes: (pixels,) becomes the code of the cell.
        orders: (pixels,) becomes the sets m_1 .. m_d, six bits each.
    """
    n = rows * columns
    elevated, cell, rank = work, work + 8 * _ROOM, work + 16 * _ROOM
    running, term, excess = work + 24 * _ROOM, work + 25 * _ROOM, work + 26 * _ROOM
    by_rank, weights = work + 32 * _ROOM, work + 40 * _ROOM
    for p in range(n):
        running[p] = 0
        excess[p] = 0
        codes[p] = 0
        orders[p] = 0
    for taken in range(d):
        j = d - taken
        table = tables + (j - 1) * extent
        for row in range(rows):
            at = row * columns
            pixel = (top + row) * width + left
            if j == 1:
                for column in range(columns):
                    term[at + column] = table[left + column]
            elif j == 2:
                for column in range(columns):
                    term[at + column] = table[top + row]
            else:
                for column in range(columns):
                    term[at + column] = table[image[(pixel + column) * 3 + j - 3]]
        factor = f32(j)
        for p in range(n):
            elevated[j * _ROOM + p] = running[p] - factor * term[p]
            running[p] += term[p]
    for p in range(n):
        elevated[p] = running[p]
    # The nearest point whose coordinates are all multiples of d+1; the constant rounds ties to even, as SSE does.
    size = f32(d + 1)
    inverse = 1.0 / size
    magic = 12582912.0
    for i in range(d + 1):
        at = i * _ROOM
        for p in range(n):
            rounded = (inverse * elevated[at + p] + magic) - magic
            cell[at + p] = rounded
            excess[p] += rounded
            rank[at + p] = 0
    for i in range(d):
        for j in range(i + 1, d + 1):
            at, to = i * _ROOM, j * _ROOM
            for p in range(n):
                behind = elevated[at + p] - cell[at + p] * size < elevated[to + p] - cell[to + p] * size
                rank[at + p] += 1.0 if behind else 0.0
                rank[to + p] += 0.0 if behind else 1.0
    # Coordinates that do not sum to zero lie off the plane; those of extreme rank are moved back by one cell.
    for k in range(d + 1):
        for p in range(n):
            by_rank[k * _ROOM + p] = 0
    pattern = i32(0b000001_000001_000001_000001_000001)
    for i in range(d + 1):
        at = i * _ROOM
        low, stride = lows[i], strides[i]
        for p in range(n):
            value = rank[at + p] + excess[p]
            step = 1.0 if value < 0 else (-1.0 if value >= size else 0.0)
            rank[at + p] = value + step * size
            cell[at + p] += step
        for p in range(n):
            codes[p] += (i64(cell[at + p]) - low) * stride
            shift = i32(6) * (i32(d) - i32(rank[at + p]))
            orders[p] |= ((pattern << shift) & i32(0x3FFFFFFF)) << i32(i)
        for k in range(d + 1):
            wanted = f32(d - k)
            for p in range(n):
                residual = (elevated[at + p] - cell[at + p] * size) * inverse
                by_rank[k * _ROOM + p] += residual if rank[at + p] == wanted else 0.0
    # A weight is the difference between the residuals of neighbouring ranks, cyclically.
    for k in range(d + 1):
        before = d if k == 0 else k - 1
        one = 1.0 if k == 0 else 0.0
        for p in range(n):
            weights[k * _ROOM + p] = by_rank[k * _ROOM + p] + (one - by_rank[before * _ROOM + p])


@kernel(i64="codes cell_codes found", i32="orders cell_table simplex_table simplex_of cell_of simplex_orders")
def number(n, codes, orders, cell_table, simplex_table, simplex_of, cell_codes, cell_of, simplex_orders, found):
    """Number the distinct cells and simplices of a tile by first use; write how many there are of each to `found`.

    The tables are twice as long as a tile and need not grow.
    """
    mask = 2 * _ROOM - 1
    for slot in range(2 * _ROOM):
        cell_table[slot] = -1
        simplex_table[slot] = -1
    cells = 0
    simplices = 0
    cell = -1
    previous = -1
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
                    cells += 1
                    break
                if cell_codes[cell] == code:
                    break
                slot = (slot + 1) & mask
        order = orders[p]
        slot = (((i64(order) * 4096 + cell) * _MIX) >> 32) & mask
        while True:
            simplex = i64(simplex_table[slot])
            if simplex < 0:
                simplex = simplices
                simplex_table[slot] = simplex
                cell_of[simplex] = cell
                simplex_orders[simplex] = order
                simplices += 1
                break
            if simplex_orders[simplex] == order and cell_of[simplex] == cell:
                break
            slot = (slot + 1) & mask
        simplex_of[p] = simplex
    found[0], found[1] = cells, simplices


@kernel(i32="table", i64="vertex_codes", returns="i64")
def insert(code, table, mask, vertex_codes, count):
    """The vertex of this code; a new one gets the number `count`."""
    slot = ((code * _MIX) >> 32) & mask
    while table[slot] >= 0:
        if vertex_codes[table[slot]] == code:
            return table[slot]
        slot = (slot + 1) & mask
    table[slot] = count
    vertex_codes[count] = code
    return count


@kernel(i32="cell_of simplex_orders local pairs fresh table", i64="cell_codes offsets vertex_codes", returns="i64")
def resolve(cells, simplices, corners, cell_of, simplex_orders, cell_codes, offsets, local, pairs, fresh, table, mask,
            vertex_codes, count):  # fmt: skip
    """Vertex numbers of every simplex of a tile; new vertices are numbered by first use.

    The loops are split so that most have no unpredictable branch: the pairs (cell, set) of all simplices, the distinct
    ones among them, those found at the first probe of the hash table, the rest.

    What it takes:
        cells, simplices: from `number`; corners: d + 1.
        cell_of, simplex_orders, cell_codes: from `number`.
        offsets: from `set_offsets`.
        local: scratch, 2^corners per cell.
        pairs: becomes the vertices, `corners` for each simplex.
        fresh: scratch, as many as `pairs`.
        table, mask, vertex_codes: hash table and codes, with room for all that a tile may add; count: vertices so far.

    Returns:
        How many vertices there are now.
    """
    sets = 1 << corners
    for i in range(cells * sets):
        local[i] = -1
    filled = 0
    for simplex in range(simplices):
        base = cell_of[simplex] * sets
        order = i64(simplex_orders[simplex]) << 6
        for k in range(corners):
            pairs[filled] = base + ((order >> (6 * k)) & 63)
            filled += 1
    distinct = 0
    for i in range(filled):
        pair = pairs[i]
        fresh[distinct] = pair
        distinct += i64(local[pair] == -1)
        local[pair] = -2
    missed = 0
    for i in range(distinct):
        pair = i64(fresh[i])
        code = cell_codes[pair >> corners] + offsets[pair & (sets - 1)]
        vertex = table[((code * _MIX) >> 32) & mask]
        local[pair] = vertex
        fresh[missed] = pair
        missed += i64((vertex < 0) | (vertex_codes[maximum(vertex, 0)] != code))
    for i in range(missed):
        pair = i64(fresh[i])
        code = cell_codes[pair >> corners] + offsets[pair & (sets - 1)]
        vertex_of_pair = insert(code, table, mask, vertex_codes, count)
        local[pair] = vertex_of_pair
        count = maximum(count, vertex_of_pair + 1)
    for i in range(filled):
        pairs[i] = local[pairs[i]]
    return count


@kernel(i64="vertex_codes", i32="table")
def rehash(vertex_codes, count, table, mask):
    """Move the first `count` vertices into a larger table."""
    for slot in range(mask + 1):
        table[slot] = -1
    for vertex in range(count):
        slot = ((vertex_codes[vertex] * _MIX) >> 32) & mask
        while table[slot] >= 0:
            slot = (slot + 1) & mask
        table[slot] = vertex


@kernel(i32="simplex_of vertices begins positions order starts group_vertices", f32="weights group_weights",
        returns="i64")  # fmt: skip
def sort(top, left, rows, columns, width, done, groups, simplices, simplex_of, vertices, weights, begins, positions,
         order, starts, group_vertices, group_weights):  # fmt: skip
    """Give the pixels of a tile their positions, simplex after simplex; return how many groups there are now."""
    for simplex in range(simplices + 1):
        begins[simplex] = 0
    for p in range(rows * columns):
        begins[simplex_of[p] + 1] += 1
    for simplex in range(simplices):
        size = begins[simplex + 1]
        begins[simplex + 1] = begins[simplex] + size
        for part in range(0, size, LONGEST):
            starts[groups] = done + begins[simplex] + part
            for k in range(6):
                group_vertices[groups * 6 + k] = vertices[simplex * 6 + k]
            groups += 1
    p = 0
    for row in range(rows):
        pixel = (top + row) * width + left
        for _ in range(columns):
            simplex = i64(simplex_of[p])
            position = done + begins[simplex]
            begins[simplex] += 1
            positions[p] = position
            order[position] = pixel
            for k in range(6):
                group_weights[position * 6 + k] = weights[k * _ROOM + p]
            p += 1
            pixel += 1
    return groups


@kernel(i32="simplex_of vertices positions point_vertices", f32="weights point_weights")
def place(n, simplex_of, vertices, weights, positions, point_vertices, point_weights):
    """Copy the 2-D vertices and weights of a tile's pixels to the positions that `sort` gave them."""
    for p in range(n):
        at = i64(positions[p]) * 3
        simplex = i64(simplex_of[p])
        for k in range(3):
            point_vertices[at + k] = vertices[simplex * 3 + k]
            point_weights[at + k] = weights[k * _ROOM + p]


@kernel(
    i64="state lows_5 strides_5 offsets_5 codes_5 lows_2 strides_2 offsets_2 codes_2 codes cell_codes",
    i32="table_5 table_2 orders simplex_of positions begins pairs fresh local cell_table simplex_table cell_of "
    "simplex_orders order starts group_vertices point_vertices",
    f32="tables_5 tables_2 work group_weights point_weights",
    u8="image",
)  # fmt: skip
def visit(state, image, height, width,
          tables_5, extent_5, lows_5, strides_5, offsets_5, table_5, mask_5, codes_5, room_5,
          tables_2, extent_2, lows_2, strides_2, offsets_2, table_2, mask_2, codes_2, room_2,
          work, codes, orders, simplex_of, positions, begins, pairs, fresh, local, cell_table, simplex_table,
          cell_codes, cell_of, simplex_orders,
          order, starts, group_vertices, group_weights, point_vertices, point_weights):  # fmt: skip
    """Both lattices, tile after tile, until there is no room for the vertices that the next tile may add.

    What it takes:
        state: the next tile, groups and pixels so far, vertices of the 5-D and of the 2-D lattice so far, and two more
            that `number` uses.
        tables_5 .. room_5: the 5-D lattice; room_5: how many vertices it may have; tables_2 .. room_2: the 2-D one.
        work .. simplex_orders: what the stages of a tile hand to each other.
        order .. point_weights: what becomes of it, see `build.Lattices`.
    """
    across = (width + TILE - 1) // TILE
    tiles = across * ((height + TILE - 1) // TILE)
    tile = state[0]
    groups, done, count_5, count_2 = state[1], state[2], state[3], state[4]
    while tile < tiles:
        top, left = tile // across * TILE, tile % across * TILE
        rows = TILE if top + TILE <= height else height - top
        columns = TILE if left + TILE <= width else width - left
        pixels = rows * columns
        if count_5 + pixels * 6 > room_5 or count_2 + pixels * 3 > room_2:
            break
        embed(5, tables_5, extent_5, image, width, top, left, rows, columns, lows_5, strides_5, work, codes, orders)
        number(pixels, codes, orders, cell_table, simplex_table, simplex_of, cell_codes, cell_of, simplex_orders,
               state + 5)  # fmt: skip
        count_5 = resolve(state[5], state[6], 6, cell_of, simplex_orders, cell_codes, offsets_5, local, pairs, fresh,
                          table_5, mask_5, codes_5, count_5)  # fmt: skip
        groups = sort(top, left, rows, columns, width, done, groups, state[6], simplex_of, pairs, work + 40 * _ROOM,
                      begins, positions, order, starts, group_vertices, group_weights)  # fmt: skip
        embed(2, tables_2, extent_2, image, width, top, left, rows, columns, lows_2, strides_2, work, codes, orders)
        number(pixels, codes, orders, cell_table, simplex_table, simplex_of, cell_codes, cell_of, simplex_orders,
               state + 5)  # fmt: skip
        count_2 = resolve(state[5], state[6], 3, cell_of, simplex_orders, cell_codes, offsets_2, local, pairs, fresh,
                          table_2, mask_2, codes_2, count_2)  # fmt: skip
        place(pixels, simplex_of, pairs, work + 40 * _ROOM, positions, point_vertices, point_weights)
        done += pixels
        tile += 1
    state[0] = tile
    state[1], state[2], state[3], state[4] = groups, done, count_5, count_2


@kernel(i64="vertex_codes strides ends", i32="table after unsettled links", u8="headed", returns="i64")
def chains(axes, vertex_codes, count, table, mask, strides, after, unsettled, headed, links, ends):
    """String the vertices of a lattice into chains of neighbours, for each of its d+1 axes.

    A blur along an axis mixes a vertex with the one before and the one after it. Along a chain it works in place with
    one load and one store per vertex, and a vertex without neighbours is in no chain.

    What it takes:
        axes: d + 1.
        vertex_codes, count, table, mask: the vertices and their hash table.
        strides: from `code_strides`.
        after, unsettled, headed: (count + 1,) scratch.
        links: becomes the vertices of all chains, axis after axis, each chain closed by `count`, which is no vertex.
        ends: (d+2,) becomes where the links of each axis begin and end.

    Returns:
        How many links there are.
    """
    every = 0
    for j in range(axes):
        every += strides[j]
    filled = 0
    ends[0] = 0
    for j in range(axes):
        # One more in every coordinate where k, the lowest three bits, would reach d+1.
        step, wrap = 1 - strides[j], every - strides[j] - (axes - 1)
        for vertex in range(count + 1):
            headed[vertex] = 0
        missed = 0
        for vertex in range(count):
            code = vertex_codes[vertex]
            code += step if (code & 7) < axes - 1 else wrap
            neighbour = table[((code * _MIX) >> 32) & mask]
            after[vertex] = neighbour
            unsettled[missed] = vertex
            missed += i64((neighbour >= 0) & (vertex_codes[maximum(neighbour, 0)] != code))
        for i in range(missed):
            lone = unsettled[i]
            code = vertex_codes[lone]
            code += step if (code & 7) < axes - 1 else wrap
            slot = ((code * _MIX) >> 32) & mask
            neighbour = table[slot]
            while neighbour >= 0 and vertex_codes[neighbour] != code:
                slot = (slot + 1) & mask
                neighbour = table[slot]
            after[lone] = neighbour
        for vertex in range(count):
            headed[after[vertex] + 1] = 1  # shifted by one: no neighbour is -1
        for vertex in range(count):
            if headed[vertex + 1] == 0 and after[vertex] >= 0:
                link = vertex
                while link >= 0:
                    links[filled] = link
                    filled += 1
                    link = i64(after[link])
                links[filled] = count
                filled += 1
        ends[j + 1] = filled
    return filled
