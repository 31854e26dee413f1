"""The inner loop of the random walk, compiled: one thread per image, without the interpreter's lock."""

from __future__ import annotations

import numba
import numpy as np
import numpy.typing as npt

__all__ = ["walk"]

Floats = npt.NDArray[np.float32]


@numba.njit(nogil=True, cache=True, fastmath=True, boundscheck=False)  # type: ignore[untyped-decorator]
def walk(maps: Floats, affinity: Floats, scale: Floats, offsets: npt.NDArray[np.int64], coefficients: Floats) -> Floats:
    """Sum of `coefficients[i] * T_i(P) maps`, `P` the weighted average over the stencil.

    The recurrence `T_(i+1) = 2 P T_i - T_(i-1)` is run on the slope, `T_(i+1) - T_i = T_i - T_(i-1) + 2 (P - 1) T_i`,
    with `(P - 1) T` summed over differences: float32 then keeps seven digits, where the plain form keeps four.

    Args:
        maps: `(k, h, w)` float32.
        affinity: `(D, h, w)` float32, of each cell and its neighbour at each offset, 0 outside the map.
        scale: `(h, w)` float32, 1 over the sum of a cell's affinities.
        offsets: `(D, 2)`, those of `half_plane_offsets`.
        coefficients: one per Chebyshev polynomial `T_i`.

    Returns:
        `(k, h, w)` float32.
    """
    k, h, w = maps.shape
    reach = np.abs(offsets[:, 1]).max()
    current = np.zeros((h + reach, k, w + 2 * reach), np.float32)
    after = np.zeros_like(current)
    slope = np.zeros((h, k, w), np.float32)  # T_i - T_(i-1)
    result = np.empty((k, h, w), np.float32)
    for c in range(k):
        for y in range(h):
            for x in range(w):
                current[y, c, x + reach] = maps[c, y, x]
                result[c, y, x] = coefficients[0] * maps[c, y, x]
    change = np.empty(w, np.float32)
    for i in range(1, len(coefficients)):
        twice = np.float32(1.0) if i == 1 else np.float32(2.0)
        for y in range(h):
            for c in range(k):
                here = current[y, c, reach : reach + w]
                change[:] = np.float32(0.0)
                for d in range(len(offsets)):
                    dy, dx = offsets[d]
                    weight = affinity[d, y]
                    there = current[y + dy, c, reach + dx : reach + dx + w]
                    for x in range(w):
                        change[x] += weight[x] * (there[x] - here[x])
                    if dy > y:
                        continue
                    # The opposite neighbour shares its affinity with this cell: it is kept at the neighbour's place.
                    first, last = max(dx, 0), w + min(dx, 0)
                    weight = affinity[d, y - dy, first - dx : last - dx]
                    there = current[y - dy, c, reach + first - dx : reach + last - dx]
                    beside, into = here[first:last], change[first:last]
                    for x in range(last - first):
                        into[x] += weight[x] * (there[x] - beside[x])
                target, factor, sums = slope[y, c], scale[y], result[c, y]
                for x in range(w):
                    target[x] += twice * factor[x] * change[x]
                    after[y, c, reach + x] = here[x] + target[x]
                    sums[x] += coefficients[i] * (here[x] + target[x])
        current, after = after, current
    return result
