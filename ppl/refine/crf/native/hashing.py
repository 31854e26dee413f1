"""A hash table of 64-bit codes, each of which has a number."""

# Numba infers the types of kernels.
# mypy: allow-untyped-defs

from __future__ import annotations

import numpy as np

from ppl.refine.compiled import kernel

__all__ = ["insert", "reserve", "slot_of"]

_MIX = -7046029254386353131  # 2^64 / golden ratio, odd, as a signed number: the multiplier of the hash


@kernel()
def slot_of(code, mask):
    """Return the first slot of a hash table that may hold a code."""
    return ((code * _MIX) >> 32) & mask


@kernel()
def insert(code, slots, codes, count):
    """Return the vertex of this code; a new vertex gets the number `count`."""
    mask = len(slots) - 1
    slot = slot_of(code, mask)
    while slots[slot] >= 0:
        if codes[slots[slot]] == code:
            return np.int64(slots[slot])
        slot = (slot + 1) & mask
    slots[slot] = count
    codes[count] = code
    return count


@kernel()
def reserve(slots, codes, count, extra):
    """Return hash table and codes with room for `extra` more vertices; the table is never more than half full."""
    if count + extra > len(codes):
        longer = np.empty(2 * (count + extra), np.int64)
        for vertex in range(count):
            longer[vertex] = codes[vertex]
        codes = longer
    if 2 * (count + extra) > len(slots):
        slots = np.empty(4 * len(slots), np.int32)
        slots[:] = -1
        mask = len(slots) - 1
        for vertex in range(count):
            slot = slot_of(codes[vertex], mask)
            while slots[slot] >= 0:
                slot = (slot + 1) & mask
            slots[slot] = vertex
    return slots, codes
