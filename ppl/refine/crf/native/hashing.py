"""A hash table of 64-bit codes, which numbers them in the order of their first use.

The slots of the table hold numbers, or -1 where they are free; `codes` holds the code of each number. `reserve` makes
more slots, while `codes` has room for all codes from the start: memory that is never touched is never handed out.
"""

# Numba infers the types of kernels.
# mypy: allow-untyped-defs

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ppl.refine.compiled import kernel

__all__ = ["Table", "insert", "reserve", "slot_of"]

_MIX = -7046029254386353131  # 2^64 / golden ratio, odd, as a signed number: the multiplier of the hash


class Table(NamedTuple):
    """A hash table.

    Attributes:
        slots: int32, its length a power of two.
        codes: int64.
    """

    slots: Any
    codes: Any

    @classmethod
    def empty(cls, room: int) -> Table:
        """Return a table with room for `room` codes. Numpy gets large arrays faster than numba does."""
        return cls(np.full(1 << 16, -1, np.int32), np.empty(room, np.int64))


@kernel()
def slot_of(code, mask):
    """Return the first slot that may hold the number of a code."""
    return ((code * _MIX) >> 32) & mask


@kernel()
def insert(code, slots, codes, count):
    """Return the number of this code; a new code gets the number `count`."""
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
    """Return slots with room for `extra` more codes; at most half of the slots are taken."""
    if 2 * (count + extra) <= len(slots):
        return slots
    size = len(slots)
    while size < 2 * (count + extra):
        size *= 2
    larger = np.empty(size, np.int32)
    larger[:] = -1
    for number in range(count):
        slot = slot_of(codes[number], size - 1)
        while larger[slot] >= 0:
            slot = (slot + 1) & (size - 1)
        larger[slot] = number
    return larger
