"""The neighbours of all vertices of a lattice."""

# Numba infers the types of kernels.
# mypy: allow-untyped-defs

from __future__ import annotations

import numpy as np

from ppl.refine.compiled import kernel
from ppl.refine.crf.native.hashing import slot_of

__all__ = ["chains"]


@kernel(cached=True)
def chains(strides, table):
    """String the vertices of a lattice into chains of neighbours, for each of the d+1 axes.

    A blur along an axis mixes a vertex with the one before and the one after it. Along a chain it works in place with
    one load and one store per vertex, and a vertex without neighbours is in no chain.

    Args:
        strides: (d+1,) of the axes.
        table: the hash table of the M vertices.

    Returns:
        links: the vertices of all chains, axis after axis, each chain closed by M, which is no vertex.
        ends: (d+2,) where the links of each axis begin and end.
    """
    slots, codes = table
    corners, count, mask = len(strides), len(codes), len(slots) - 1
    links = np.empty(2 * count * corners + 1, np.int32)
    ends = np.empty(corners + 1, np.int64)
    ends[0] = 0
    after, unsettled = np.empty(count + 1, np.int32), np.empty(count + 1, np.int32)
    headed = np.empty(count + 1, np.uint8)
    every = strides.sum()
    filled = 0
    for j in range(corners):
        # One more in every coordinate where k, the lowest three bits, would reach d+1.
        step, wrap = 1 - strides[j], every - strides[j] - (corners - 1)
        headed[:] = 0
        missed = 0
        for vertex in range(count):
            code = codes[vertex]
            code += step if (code & 7) < corners - 1 else wrap
            neighbour = slots[slot_of(code, mask)]
            after[vertex] = neighbour
            unsettled[missed] = vertex
            missed += np.int64((neighbour >= 0) & (codes[max(neighbour, 0)] != code))
        for i in range(missed):
            lone = unsettled[i]
            code = codes[lone]
            code += step if (code & 7) < corners - 1 else wrap
            slot = slot_of(code, mask)
            while slots[slot] >= 0 and codes[slots[slot]] != code:
                slot = (slot + 1) & mask
            after[lone] = slots[slot]
        for vertex in range(count):
            headed[after[vertex] + 1] = 1  # shifted by one: a vertex without a neighbour has -1
        for vertex in range(count):
            if headed[vertex + 1] == 0 and after[vertex] >= 0:
                link = np.int64(vertex)
                while link >= 0:
                    links[filled] = link
                    filled += 1
                    link = np.int64(after[link])
                links[filled] = count
                filled += 1
        ends[j + 1] = filled
    return links[:filled].copy(), ends
