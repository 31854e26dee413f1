"""The inner loop of the random walk, compiled: one thread per image, without the interpreter's lock."""

from __future__ import annotations

import numba
import numpy as np
import numpy.typing as npt

__all__ = ["walk"]

Floats = npt.NDArray[np.float32]


@numba.njit(nogil=True, cache=True, fastmath=True, boundscheck=False)  # type: ignore[untyped-decorator]
def walk(maps: Floats, weights: Floats, directions: npt.NDArray[np.int64], coefficients: Floats) -> Floats:
    """Sum of `coefficients[i] * T_i(P) maps`, `P` the weighted average over the stencil.

    The recurrence `T_(i+1) = 2 P T_i - T_(i-1)` is run on the slope, `T_(i+1) - T_i = T_i - T_(i-1) + 2 (P - 1) T_i`,
    with `(P - 1) T` summed over differences: float32 then keeps seven digits, where the plain form keeps four.

    Args:
        maps: `(k, h, w)` float32.
        weights: `(h, S, w)` float32, for every row the weights of its cells' neighbours in each of `S` directions.
        directions: `(S, 2)` offsets of the neighbours.
        coefficients: one per Chebyshev polynomial `T_i`.

    Returns:
        `(k, h, w)` float32.
    """
    k, h, w = maps.shape
    reach_y = np.abs(directions[:, 0]).max()
    reach_x = np.abs(directions[:, 1]).max()
    current = np.zeros((h + 2 * reach_y, k, w + 2 * reach_x), np.float32)
    after = np.zeros_like(current)
    slope = np.zeros((h, k, w), np.float32)  # T_i - T_(i-1)
    result = np.empty((k, h, w), np.float32)
    for c in range(k):
        for y in range(h):
            for x in range(w):
                current[y + reach_y, c, x + reach_x] = maps[c, y, x]
                result[c, y, x] = coefficients[0] * maps[c, y, x]
    change = np.empty(w, np.float32)
    for i in range(1, len(coefficients)):
        twice = np.float32(1.0) if i == 1 else np.float32(2.0)
        for y in range(h):
            for c in range(k):
                here = current[y + reach_y, c, reach_x : reach_x + w]
                change[:] = np.float32(0.0)
                for s in range(len(directions)):
                    weight = weights[y, s]
                    start = reach_x + directions[s, 1]
                    there = current[y + reach_y + directions[s, 0], c, start : start + w]
                    for x in range(w):
                        change[x] += weight[x] * (there[x] - here[x])
                target = slope[y, c]
                sums = result[c, y]
                for x in range(w):
                    target[x] += twice * change[x]
                    after[y + reach_y, c, reach_x + x] = here[x] + target[x]
                    sums[x] += coefficients[i] * (here[x] + target[x])
        current, after = after, current
    return result
