"""The steps of the mean field: splat, blur and slice of label rows on the two lattices, and the softmax between them.

A row holds all labels but the last, whose probability follows from the sum, padded to whole registers. The filtered
values are q_l + (sum of q over the row) / copies, so that a slice is the gain of a label from its neighbours less the
gain of the last label.
"""

# Numba infers the types of kernels.
# mypy: allow-untyped-defs

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np

from ppl.refine.compiled import kernel
from ppl.refine.crf.native.vectors import add, exp, fill, fma, highest, load, mul, store, sub, total

__all__ = ["WIDE", "blur_wide", "make_blur", "make_sweep", "pack", "slice_ones", "splat_ones", "sweep_wide", "unpack"]

WIDE = 16
"""Values in a register: rows of more than two registers are handled register by register."""

_F = np.float32


@cache
def make_blur(width: int) -> Callable[..., None]:
    """Return the blur for rows of `width` values."""

    @kernel(variant=f"_{width}", cached=True)
    def blur(values, count, links, ends):
        """Mix every vertex with half of either neighbour, axis after axis, in place.

        Row `count` of `values`, where a chain closes, stays zero; its writes go to the next row.
        """
        for axis in range(len(ends) - 1):
            begin, end = ends[axis], ends[axis + 1]
            if begin == end:
                continue
            vertex = np.int64(links[begin])
            previous = fill(_F(0), width)
            current = load(values, vertex * width, width)
            for i in range(begin + 1, end + 1):
                after = np.int64(links[i]) if i < end else count
                following = load(values, after * width, width)
                target = vertex + np.int64(vertex == count)
                store(values, target * width, fma(_F(0.5), add(previous, following), current))
                previous = current
                current = following
                vertex = after

    return blur  # type: ignore[no-any-return]


@kernel(cached=True)
def blur_wide(values, count, links, ends, stride):
    """Blur rows of several registers as `make_blur` blurs rows of one."""
    earlier = np.empty(stride, np.float32)
    for axis in range(len(ends) - 1):
        begin, end = ends[axis], ends[axis + 1]
        if begin == end:
            continue
        vertex = np.int64(links[begin])
        earlier[:] = 0
        for i in range(begin + 1, end + 1):
            after = np.int64(links[i]) if i < end else count
            source, target = vertex * stride, (vertex + np.int64(vertex == count)) * stride
            for column in range(0, stride, WIDE):
                current = load(values, source + column, WIDE)
                sides = add(load(earlier, column, WIDE), load(values, after * stride + column, WIDE))
                store(earlier, column, current)
                store(values, target + column, fma(_F(0.5), sides, current))
            vertex = after


@kernel(cached=True)
def splat_ones(touched, near, flat):
    """Splat the constant 1 onto both lattices, whose values are given as zeros."""
    _, starts, group_vertices, group_weights, point_vertices, point_weights = touched
    for group in range(len(starts) - 1):
        s0 = s1 = s2 = s3 = s4 = s5 = _F(0)
        for p in range(starts[group], starts[group + 1]):
            s0 += group_weights[p, 0]
            s1 += group_weights[p, 1]
            s2 += group_weights[p, 2]
            s3 += group_weights[p, 3]
            s4 += group_weights[p, 4]
            s5 += group_weights[p, 5]
            for k in range(3):
                flat[point_vertices[p, k]] += point_weights[p, k]
        near[group_vertices[group, 0]] += s0
        near[group_vertices[group, 1]] += s1
        near[group_vertices[group, 2]] += s2
        near[group_vertices[group, 3]] += s3
        near[group_vertices[group, 4]] += s4
        near[group_vertices[group, 5]] += s5


@kernel(cached=True)
def slice_ones(touched, near, flat, fold, near_alpha, flat_alpha, near_compat, flat_compat, constant):
    """Slice the blurred ones of `splat_ones`, for one of two purposes.

    With `fold`, multiply the weights by 1 / sqrt(K 1) and by the square root of alpha times the compatibility: slicing
    and splatting then apply each of them once. Without, fill `constant` with the gain of all labels together.

    Returns:
        The largest value of `constant`.
    """
    _, starts, group_vertices, group_weights, point_vertices, point_weights = touched
    tiny = _F(1e-20)
    near_root = np.sqrt(near_alpha * near_compat)
    flat_root = np.sqrt(flat_alpha * flat_compat)
    largest = _F(0)
    for group in range(len(starts) - 1):
        r0 = near[group_vertices[group, 0]]
        r1 = near[group_vertices[group, 1]]
        r2 = near[group_vertices[group, 2]]
        r3 = near[group_vertices[group, 3]]
        r4 = near[group_vertices[group, 4]]
        r5 = near[group_vertices[group, 5]]
        for p in range(starts[group], starts[group + 1]):
            mass = group_weights[p, 0] * r0 + group_weights[p, 1] * r1 + group_weights[p, 2] * r2
            mass += group_weights[p, 3] * r3 + group_weights[p, 4] * r4 + group_weights[p, 5] * r5
            flat_mass = _F(0)
            for k in range(3):
                flat_mass += point_weights[p, k] * flat[point_vertices[p, k]]
            if fold:
                factor = near_root / np.sqrt(mass * near_alpha + tiny)
                for k in range(6):
                    group_weights[p, k] *= factor
                factor = flat_root / np.sqrt(flat_mass * flat_alpha + tiny)
                for k in range(3):
                    point_weights[p, k] *= factor
            else:
                constant[p] = mass + flat_mass
                largest = max(largest, mass + flat_mass)
    return largest


@kernel(cached=True)
def pack(unary, order, rows):
    """Fill rows with the energy differences to the last label, in the order of the lattice."""
    labels, pixels = unary.shape
    for p in range(pixels):
        pixel = order[p]
        last = unary[labels - 1, pixel]
        for label in range(labels - 1):
            rows[p, label] = last - unary[label, pixel]
        for label in range(labels - 1, rows.shape[1]):
            rows[p, label] = _F(-1e4)
    return rows


@kernel(cached=True)
def unpack(rows, order, copies, result):
    """Fill (labels, N) planes of probabilities in raster order, the last label among them."""
    labels = len(result)
    for p in range(len(order)):
        pixel = order[p]
        rest = _F(1)
        for label in range(labels - 1):
            value = rows[p, label]
            result[label, pixel] = value
            rest -= value
        result[labels - 1, pixel] = max(rest, _F(0)) / _F(copies)


@cache
def make_sweep(width: int) -> Callable[..., None]:
    """Return the sweep for rows of `width` values, which stay in registers."""

    @kernel(variant=f"_{width}", cached=True)
    def sweep(rows, constant, share, far, first, last, touched, near_in, flat_in, near_out, flat_out):
        """Take one mean-field step over all pixels.

        Args:
            rows: energy differences; the last step overwrites them with probabilities.
            constant: the gain of all labels together at each position.
            share: 1 / copies, float32.
            far: whether exponents may overflow, so that the largest is taken out first.
            first: whether nothing is sliced before the softmax.
            last: whether nothing is splatted after the softmax.
            touched: see `lattice.Touched`.
            near_in: rows of the 5-D vertices to slice.
            flat_in: rows of the 2-D vertices to slice.
            near_out: rows of the 5-D vertices to splat onto.
            flat_out: rows of the 2-D vertices to splat onto.
        """
        _, starts, group_vertices, group_weights, point_vertices, point_weights = touched
        copies = _F(1) / share
        zero = fill(_F(0), width)
        for group in range(len(starts) - 1):
            v0 = np.int64(group_vertices[group, 0]) * width
            v1 = np.int64(group_vertices[group, 1]) * width
            v2 = np.int64(group_vertices[group, 2]) * width
            v3 = np.int64(group_vertices[group, 3]) * width
            v4 = np.int64(group_vertices[group, 4]) * width
            v5 = np.int64(group_vertices[group, 5]) * width
            r0 = load(near_in, v0, width)
            r1 = load(near_in, v1, width)
            r2 = load(near_in, v2, width)
            r3 = load(near_in, v3, width)
            r4 = load(near_in, v4, width)
            r5 = load(near_in, v5, width)
            s0 = s1 = s2 = s3 = s4 = s5 = zero
            for p in range(starts[group], starts[group + 1]):
                w0, w1, w2 = group_weights[p, 0], group_weights[p, 1], group_weights[p, 2]
                w3, w4, w5 = group_weights[p, 3], group_weights[p, 4], group_weights[p, 5]
                g0 = np.int64(point_vertices[p, 0]) * width
                g1 = np.int64(point_vertices[p, 1]) * width
                g2 = np.int64(point_vertices[p, 2]) * width
                u0, u1, u2 = point_weights[p, 0], point_weights[p, 1], point_weights[p, 2]
                value = load(rows, p * width, width)
                if not first:
                    value = add(value, fill(-constant[p] * share, width))
                    other = mul(w0, r0)
                    value = fma(w1, r1, value)
                    other = fma(w2, r2, other)
                    value = fma(w3, r3, value)
                    other = fma(w4, r4, other)
                    value = fma(w5, r5, value)
                    other = fma(u0, load(flat_in, g0, width), other)
                    value = fma(u1, load(flat_in, g1, width), value)
                    other = fma(u2, load(flat_in, g2, width), other)
                    value = add(value, other)
                base = copies
                if far:
                    top = max(highest(value), _F(0))
                    value = sub(value, top)
                    base = copies * np.exp(-top)
                value = exp(value)
                mass = total(value)
                scale = _F(1) / (mass + base)
                if last:
                    store(rows, p * width, mul(scale, value))
                else:
                    value = mul(scale, add(value, fill(mass * share, width)))
                    s0 = fma(w0, value, s0)
                    s1 = fma(w1, value, s1)
                    s2 = fma(w2, value, s2)
                    s3 = fma(w3, value, s3)
                    s4 = fma(w4, value, s4)
                    s5 = fma(w5, value, s5)
                    store(flat_out, g0, fma(u0, value, load(flat_out, g0, width)))
                    store(flat_out, g1, fma(u1, value, load(flat_out, g1, width)))
                    store(flat_out, g2, fma(u2, value, load(flat_out, g2, width)))
            if not last:
                store(near_out, v0, add(s0, load(near_out, v0, width)))
                store(near_out, v1, add(s1, load(near_out, v1, width)))
                store(near_out, v2, add(s2, load(near_out, v2, width)))
                store(near_out, v3, add(s3, load(near_out, v3, width)))
                store(near_out, v4, add(s4, load(near_out, v4, width)))
                store(near_out, v5, add(s5, load(near_out, v5, width)))

    return sweep  # type: ignore[no-any-return]


@kernel(cached=True)
def sweep_wide(rows, constant, share, far, first, last, touched, near_in, flat_in, near_out, flat_out, stride, longest):
    """Take one mean-field step as `make_sweep`'s kernels do, for rows of several registers.

    The work goes group by group and register by register, with the softmax in between. `stride` is the number of values
    in a row, a multiple of `WIDE`; `longest` is the number of pixels in the largest group.
    """
    _, starts, group_vertices, group_weights, point_vertices, point_weights = touched
    block = np.empty(longest * stride, np.float32)
    masses = np.empty(longest, np.float32)
    copies = _F(1) / share
    zero = fill(_F(0), WIDE)
    for group in range(len(starts) - 1):
        begin, end = np.int64(starts[group]), np.int64(starts[group + 1])
        v0 = np.int64(group_vertices[group, 0]) * stride
        v1 = np.int64(group_vertices[group, 1]) * stride
        v2 = np.int64(group_vertices[group, 2]) * stride
        v3 = np.int64(group_vertices[group, 3]) * stride
        v4 = np.int64(group_vertices[group, 4]) * stride
        v5 = np.int64(group_vertices[group, 5]) * stride
        masses[: end - begin] = 0
        for column in range(0, stride, WIDE):
            r0 = load(near_in, v0 + column, WIDE)
            r1 = load(near_in, v1 + column, WIDE)
            r2 = load(near_in, v2 + column, WIDE)
            r3 = load(near_in, v3 + column, WIDE)
            r4 = load(near_in, v4 + column, WIDE)
            r5 = load(near_in, v5 + column, WIDE)
            for p in range(begin, end):
                value = load(rows, p * stride + column, WIDE)
                if not first:
                    g0 = np.int64(point_vertices[p, 0]) * stride + column
                    g1 = np.int64(point_vertices[p, 1]) * stride + column
                    g2 = np.int64(point_vertices[p, 2]) * stride + column
                    value = add(value, fill(-constant[p] * share, WIDE))
                    other = mul(group_weights[p, 0], r0)
                    value = fma(group_weights[p, 1], r1, value)
                    other = fma(group_weights[p, 2], r2, other)
                    value = fma(group_weights[p, 3], r3, value)
                    other = fma(group_weights[p, 4], r4, other)
                    value = fma(group_weights[p, 5], r5, value)
                    other = fma(point_weights[p, 0], load(flat_in, g0, WIDE), other)
                    value = fma(point_weights[p, 1], load(flat_in, g1, WIDE), value)
                    other = fma(point_weights[p, 2], load(flat_in, g2, WIDE), other)
                    value = add(value, other)
                if not far:
                    value = exp(value)
                    masses[p - begin] += total(value)
                store(block, (p - begin) * stride + column, value)
        for p in range(begin, end):
            at = (p - begin) * stride
            base = copies
            if far:
                top = _F(0)
                for column in range(0, stride, WIDE):
                    top = max(top, highest(load(block, at + column, WIDE)))
                base = copies * np.exp(-top)
                for column in range(0, stride, WIDE):
                    value = exp(sub(load(block, at + column, WIDE), top))
                    masses[p - begin] += total(value)
                    store(block, at + column, value)
            mass = masses[p - begin]
            scale = _F(1) / (mass + base)
            if last:
                for column in range(0, stride, WIDE):
                    store(rows, p * stride + column, mul(scale, load(block, at + column, WIDE)))
                continue
            for column in range(0, stride, WIDE):
                value = mul(scale, add(load(block, at + column, WIDE), fill(mass * share, WIDE)))
                store(block, at + column, value)
                for k in range(3):
                    place = np.int64(point_vertices[p, k]) * stride + column
                    store(flat_out, place, fma(point_weights[p, k], value, load(flat_out, place, WIDE)))
        if last:
            continue
        for column in range(0, stride, WIDE):
            s0 = s1 = s2 = s3 = s4 = s5 = zero
            for p in range(begin, end):
                value = load(block, (p - begin) * stride + column, WIDE)
                s0 = fma(group_weights[p, 0], value, s0)
                s1 = fma(group_weights[p, 1], value, s1)
                s2 = fma(group_weights[p, 2], value, s2)
                s3 = fma(group_weights[p, 3], value, s3)
                s4 = fma(group_weights[p, 4], value, s4)
                s5 = fma(group_weights[p, 5], value, s5)
            store(near_out, v0 + column, add(s0, load(near_out, v0 + column, WIDE)))
            store(near_out, v1 + column, add(s1, load(near_out, v1 + column, WIDE)))
            store(near_out, v2 + column, add(s2, load(near_out, v2 + column, WIDE)))
            store(near_out, v3 + column, add(s3, load(near_out, v3 + column, WIDE)))
            store(near_out, v4 + column, add(s4, load(near_out, v4 + column, WIDE)))
            store(near_out, v5 + column, add(s5, load(near_out, v5 + column, WIDE)))
