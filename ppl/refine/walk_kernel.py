"""The inner loop of the random walk, compiled: one thread per image, without the interpreter's lock."""

# Kernels are typed by their decorators.
# mypy: allow-untyped-defs

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ppl.refine.kernel import compiled, kernel
from ppl.refine.kernel.operations import fma

__all__ = ["walk"]

Floats = npt.NDArray[np.float32]


def walk(maps: Floats, affinity: Floats, scale: Floats, offsets: npt.NDArray[np.int64], coefficients: Floats) -> Floats:
    """Sum of `coefficients[i] * T_i(P) maps`, `P` the weighted average over the stencil.

    Args:
        maps: `(k, h, w)` float32, contiguous like the rest.
        affinity: `(D, h, w)` float32, of each cell and its neighbour at each offset, 0 outside the map.
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
    compiled(_walk)(
        k, h, w, reach, len(offsets), offsets, affinity, scale, len(coefficients), coefficients, current,
        np.zeros_like(current), np.zeros(maps.size, np.float32), np.empty(w, np.float32), result,
    )  # fmt: skip
    return result


@kernel(i64="offsets", f32="affinity scale coefficients current after slope change result")
def _walk(k, h, w, reach, directions, offsets, affinity, scale, count, coefficients, current, after, slope, change,
          result):  # fmt: skip
    """Add the terms from T_1 on to `result`, which holds that of T_0.

    The recurrence `T_(i+1) = 2 P T_i - T_(i-1)` is run on the slope, `T_(i+1) - T_i = T_i - T_(i-1) + 2 (P - 1) T_i`,
    with `(P - 1) T` summed over differences: float32 then keeps seven digits, where the plain form keeps four.

    What it takes:
        current, after: (h + reach, k, w + 2 reach), zero around the map, which `current` holds: T_i and T_(i+1).
        slope: (h, k, w) zeros: T_i - T_(i-1).
        change: (w,) scratch.
    """
    line = w + 2 * reach
    for i in range(1, count):
        twice = 1.0 if i == 1 else 2.0
        coefficient = coefficients[i]
        for y in range(h):
            for c in range(k):
                start = (y * k + c) * line + reach
                here = current + start
                for x in range(w):
                    change[x] = 0
                for d in range(directions):
                    dy, dx = offsets[2 * d], offsets[2 * d + 1]
                    weight = affinity + (d * h + y) * w
                    there = here + (dy * k * line + dx)
                    for x in range(w):
                        change[x] = fma(weight[x], there[x] - here[x], change[x])
                    if dy <= y:
                        # The opposite neighbour shares its affinity with this cell, kept at the neighbour's place.
                        first = dx if dx > 0 else 0
                        last = w + dx if dx < 0 else w
                        weight = affinity + ((d * h + y - dy) * w - dx)
                        there = here + (-dy * k * line - dx)
                        for x in range(first, last):
                            change[x] = fma(weight[x], there[x] - here[x], change[x])
                target, factor, sums = slope + (y * k + c) * w, scale + y * w, result + (c * h + y) * w
                new = after + start
                for x in range(w):
                    target[x] = fma(twice * factor[x], change[x], target[x])
                    value = here[x] + target[x]
                    new[x] = value
                    sums[x] = fma(coefficient, value, sums[x])
        current, after = after, current
