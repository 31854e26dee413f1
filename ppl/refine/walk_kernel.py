"""The inner loop of the random walk, compiled: one thread per image, without the interpreter's lock."""

# Numba infers the types of kernels.
# mypy: allow-untyped-defs

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ppl.refine.compiled import kernel

__all__ = ["walk"]

# Numba tests whether a signed index counts from the end; the test keeps loops from becoming vector code.
U = np.uint64
Floats = npt.NDArray[np.float32]


def walk(maps: Floats, affinity: Floats, scale: Floats, offsets: npt.NDArray[np.int64], coefficients: Floats) -> Floats:
    """Return the sum of `coefficients[i] * T_i(P) maps`, where `P` averages over neighbours.

    Args:
        maps: `(k, h, w)` float32, contiguous like all other arrays.
        affinity: `(D, h, w)` float32, the affinity of each cell and its neighbour at each offset, 0 outside the map.
        scale: `(h, w)` float32, 1 over the sum of a cell's affinities.
        offsets: `(D, 2)`, those of `half_plane_offsets`.
        coefficients: one per Chebyshev polynomial `T_i`.

    Returns:
        `(k, h, w)` float32.
    """
    k, h, w = maps.shape
    reach = int(np.abs(offsets[:, 1]).max())
    current = np.zeros((h + reach, k, w + 2 * reach), np.float32)
    current[:h, :, reach : reach + w] = maps.transpose(1, 0, 2)
    result: Floats = coefficients[0] * maps
    slope = np.zeros((h, k, w), np.float32)
    _add_terms(offsets, affinity, scale, coefficients, current, np.zeros_like(current), slope, result)
    return result


@kernel(cached=True, fused=True)
def _add_terms(offsets, affinity, scale, coefficients, current, after, slope, result):
    """Add the terms from T_1 on to `result`, which holds the term of T_0.

    The recurrence `T_(i+1) = 2 P T_i - T_(i-1)` is run on the slope, `T_(i+1) - T_i = T_i - T_(i-1) + 2 (P - 1) T_i`,
    with `(P - 1) T` summed over differences: float32 then keeps seven digits, where the plain form keeps four.

    Args:
        offsets: `(D, 2)`.
        affinity: `(D, h, w)`.
        scale: `(h, w)`.
        coefficients: one per polynomial.
        current: `(h + reach, k, w + 2 reach)`, T_i in the middle of zeros.
        after: zeros of the same shape; becomes T_(i+1).
        slope: `(h, k, w)` zeros; becomes T_i - T_(i-1).
        result: `(k, h, w)`.
    """
    k, h, w = result.shape
    reach = (current.shape[2] - w) // 2
    line = w + 2 * reach
    weights = affinity.reshape(affinity.size)
    change = np.empty(w, np.float32)
    for i in range(1, len(coefficients)):
        coefficient = coefficients[i]
        twice = np.float32(1 if i == 1 else 2)
        values = current.reshape(current.size)
        for y in range(h):
            for c in range(k):
                start = (y * k + c) * line + reach
                here = U(start)
                change[:] = 0
                for d in range(len(offsets)):
                    dy, dx = offsets[d, 0], offsets[d, 1]
                    at, there = U((d * h + y) * w), U(start + dy * k * line + dx)
                    for x in range(U(w)):
                        change[x] += weights[at + x] * (values[there + x] - values[here + x])
                    if dy <= y:
                        # The opposite neighbour shares its affinity with this cell, kept at the neighbour's place.
                        first, last = U(max(dx, 0)), U(max(min(w + dx, w), 0))
                        at, there = U((d * h + y - dy) * w - dx), U(start - dy * k * line - dx)
                        for x in range(first, last):
                            change[x] += weights[at + x] * (values[there + x] - values[here + x])
                target, factor, sums = slope[y, c], scale[y], result[c, y]
                new = after[y, c, reach : reach + w]
                for x in range(U(w)):
                    target[x] += twice * factor[x] * change[x]
                    value = values[here + x] + target[x]
                    new[x] = value
                    sums[x] += coefficient * value
        current, after = after, current
