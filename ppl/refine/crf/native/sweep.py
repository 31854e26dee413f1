"""The mean field itself: splat, blur and slice of label rows on the two lattices, and the softmax between them.

A row holds all labels but the last, whose probability follows from the sum, padded to whole registers. What is
filtered is q_l + (sum of q over the row) / copies, so that a slice yields at once how much more a label gains from its
neighbours than the last one does.
"""

# Numba infers the types of kernels.
# mypy: allow-untyped-defs

from __future__ import annotations

import numpy as np

from ppl.refine.crf.native.compile import kernel
from ppl.refine.crf.native.lanes import add, exp, fill, fma, fold, highest, load, mul, store, sub, total

__all__ = ["blur", "pack", "slice_ones", "splat_ones", "sweep", "sweep_wide", "unpack"]


@kernel
def blur(values, links, ends, stride, lanes, tail):
    """Mix every vertex with half of either neighbour, axis after axis, in place.

    Row M of `values`, where a chain closes, is zero and stays so; what would be written there goes to row M+1.
    """
    width, narrow = len(lanes), len(tail)
    edge = stride - stride % width
    count = values.size // stride - 2
    earlier = np.empty(stride, np.float32)
    for axis in range(ends.size - 1):
        begin, end = ends[axis], ends[axis + 1]
        if begin == end:
            continue
        vertex = np.int64(links[begin])
        if stride == width:
            previous = fill(np.float32(0), lanes)
            current = load(values, vertex * width, lanes)
            for i in range(begin, end):
                after = np.int64(links[i + 1]) if i + 1 < end else count
                following = load(values, after * width, lanes)
                target = vertex + np.int64(vertex == count)
                store(values, target * width, fma(np.float32(0.5), add(previous, following), current))
                previous = current
                current = following
                vertex = after
        else:
            for column in range(stride):
                earlier[column] = 0
            for i in range(begin, end):
                after = np.int64(links[i + 1]) if i + 1 < end else count
                target = vertex + np.int64(vertex == count)
                for column in range(0, edge, width):
                    current = load(values, vertex * stride + column, lanes)
                    sides = add(load(earlier, column, lanes), load(values, after * stride + column, lanes))
                    store(earlier, column, current)
                    store(values, target * stride + column, fma(np.float32(0.5), sides, current))
                for column in range(edge, stride, narrow):
                    current = load(values, vertex * stride + column, tail)
                    sides = add(load(earlier, column, tail), load(values, after * stride + column, tail))
                    store(earlier, column, current)
                    store(values, target * stride + column, fma(np.float32(0.5), sides, current))
                vertex = after


@kernel
def splat_ones(starts, group_vertices, group_weights, point_vertices, point_weights, near, flat):
    """Splat the constant 1 onto both lattices, whose values are given as zeros."""
    for group in range(starts.size - 1):
        s0 = s1 = s2 = s3 = s4 = s5 = np.float32(0)
        for p in range(starts[group], starts[group + 1]):
            s0 += group_weights[p * 6]
            s1 += group_weights[p * 6 + 1]
            s2 += group_weights[p * 6 + 2]
            s3 += group_weights[p * 6 + 3]
            s4 += group_weights[p * 6 + 4]
            s5 += group_weights[p * 6 + 5]
            flat[point_vertices[p * 3]] += point_weights[p * 3]
            flat[point_vertices[p * 3 + 1]] += point_weights[p * 3 + 1]
            flat[point_vertices[p * 3 + 2]] += point_weights[p * 3 + 2]
        near[group_vertices[group * 6]] += s0
        near[group_vertices[group * 6 + 1]] += s1
        near[group_vertices[group * 6 + 2]] += s2
        near[group_vertices[group * 6 + 3]] += s3
        near[group_vertices[group * 6 + 4]] += s4
        near[group_vertices[group * 6 + 5]] += s5


@kernel
def slice_ones(starts, group_vertices, group_weights, point_vertices, point_weights, near, flat, normalise, near_alpha,
               flat_alpha, near_compat, flat_compat, constant):  # fmt: skip
    """Slice what `splat_ones` and two blurs have left, for one of two purposes.

    With `normalise`, fold 1 / sqrt(K 1) and the square root of alpha times the compatibility into the weights: slicing
    and splatting then apply them once each. Without, write what all labels together gain to `constant`.

    Returns:
        The largest value of `constant`.
    """
    tiny = np.float32(1e-20)
    near_root = np.float32(np.sqrt(near_alpha * near_compat))
    flat_root = np.float32(np.sqrt(flat_alpha * flat_compat))
    largest = np.float32(0)
    for group in range(starts.size - 1):
        r0 = near[group_vertices[group * 6]]
        r1 = near[group_vertices[group * 6 + 1]]
        r2 = near[group_vertices[group * 6 + 2]]
        r3 = near[group_vertices[group * 6 + 3]]
        r4 = near[group_vertices[group * 6 + 4]]
        r5 = near[group_vertices[group * 6 + 5]]
        for p in range(starts[group], starts[group + 1]):
            at = p * 6
            mass = group_weights[at] * r0 + group_weights[at + 1] * r1 + group_weights[at + 2] * r2
            mass += group_weights[at + 3] * r3 + group_weights[at + 4] * r4 + group_weights[at + 5] * r5
            to = p * 3
            flat_mass = point_weights[to] * flat[point_vertices[to]]
            flat_mass += point_weights[to + 1] * flat[point_vertices[to + 1]]
            flat_mass += point_weights[to + 2] * flat[point_vertices[to + 2]]
            if normalise:
                factor = near_root / np.sqrt(mass * near_alpha + tiny)
                for k in range(6):
                    group_weights[at + k] *= factor
                factor = flat_root / np.sqrt(flat_mass * flat_alpha + tiny)
                for k in range(3):
                    point_weights[to + k] *= factor
            else:
                gain = mass + flat_mass
                constant[p] = gain
                largest = max(largest, gain)
    return largest


@kernel
def pack(unary, order, stride, rows):
    """Rows of energy differences to the last label, in the order of the lattice; returns the largest in magnitude."""
    labels = unary.shape[0]
    largest = np.float32(0)
    for p in range(order.size):
        pixel = order[p]
        last = unary[labels - 1, pixel]
        for label in range(labels - 1):
            value = last - unary[label, pixel]
            rows[p * stride + label] = value
            largest = max(largest, abs(value))
        for label in range(labels - 1, stride):
            rows[p * stride + label] = np.float32(-1e4)
    return largest


@kernel
def unpack(rows, order, stride, copies, result):
    """Planes of probabilities in raster order, the last label among them."""
    labels = result.shape[0]
    for p in range(order.size):
        pixel = order[p]
        rest = np.float32(1)
        for label in range(labels - 1):
            value = rows[p * stride + label]
            result[label, pixel] = value
            rest -= value
        result[labels - 1, pixel] = max(rest, np.float32(0)) / copies


@kernel
def sweep(rows, constant, share, far, first, last, starts, group_vertices, group_weights, point_vertices, point_weights,
          near_in, flat_in, near_out, flat_out, lanes):  # fmt: skip
    """One mean-field step over all pixels, for rows of a single register.

    What it takes:
        rows: energy differences, in the last step overwritten by probabilities.
        constant: what all labels together gain, per position; share: 1 / copies.
        far: whether exponents may overflow, so that the largest is taken out first.
        first, last: no slice before the first softmax, no splat after the last.
        near_in, near_out: rows of the 5-D vertices; flat_in, flat_out: of the 2-D vertices.
    """
    width = len(lanes)
    one = np.float32(1)
    copies = one / share
    zero = fill(np.float32(0), lanes)
    for group in range(starts.size - 1):
        v0 = np.int64(group_vertices[group * 6]) * width
        v1 = np.int64(group_vertices[group * 6 + 1]) * width
        v2 = np.int64(group_vertices[group * 6 + 2]) * width
        v3 = np.int64(group_vertices[group * 6 + 3]) * width
        v4 = np.int64(group_vertices[group * 6 + 4]) * width
        v5 = np.int64(group_vertices[group * 6 + 5]) * width
        r0 = load(near_in, v0, lanes)
        r1 = load(near_in, v1, lanes)
        r2 = load(near_in, v2, lanes)
        r3 = load(near_in, v3, lanes)
        r4 = load(near_in, v4, lanes)
        r5 = load(near_in, v5, lanes)
        s0 = s1 = s2 = s3 = s4 = s5 = zero
        for p in range(starts[group], starts[group + 1]):
            w0, w1, w2 = group_weights[p * 6], group_weights[p * 6 + 1], group_weights[p * 6 + 2]
            w3, w4, w5 = group_weights[p * 6 + 3], group_weights[p * 6 + 4], group_weights[p * 6 + 5]
            g0 = np.int64(point_vertices[p * 3]) * width
            g1 = np.int64(point_vertices[p * 3 + 1]) * width
            g2 = np.int64(point_vertices[p * 3 + 2]) * width
            u0, u1, u2 = point_weights[p * 3], point_weights[p * 3 + 1], point_weights[p * 3 + 2]
            value = load(rows, p * width, lanes)
            if not first:
                value = add(value, fill(-constant[p] * share, lanes))
                other = mul(fill(w0, lanes), r0)
                value = fma(w1, r1, value)
                other = fma(w2, r2, other)
                value = fma(w3, r3, value)
                other = fma(w4, r4, other)
                value = fma(w5, r5, value)
                other = fma(u0, load(flat_in, g0, lanes), other)
                value = fma(u1, load(flat_in, g1, lanes), value)
                other = fma(u2, load(flat_in, g2, lanes), other)
                value = add(value, other)
            base = copies
            if far:
                top = max(highest(value), np.float32(0))
                value = sub(value, fill(top, lanes))
                base = copies * np.float32(np.exp(-top))
            value = exp(value)
            mass = total(value)
            scale = one / (mass + base)
            if last:
                store(rows, p * width, mul(value, fill(scale, lanes)))
            else:
                value = mul(add(value, fill(mass * share, lanes)), fill(scale, lanes))
                s0 = fma(w0, value, s0)
                s1 = fma(w1, value, s1)
                s2 = fma(w2, value, s2)
                s3 = fma(w3, value, s3)
                s4 = fma(w4, value, s4)
                s5 = fma(w5, value, s5)
                store(flat_out, g0, fma(u0, value, load(flat_out, g0, lanes)))
                store(flat_out, g1, fma(u1, value, load(flat_out, g1, lanes)))
                store(flat_out, g2, fma(u2, value, load(flat_out, g2, lanes)))
        if not last:
            store(near_out, v0, add(s0, load(near_out, v0, lanes)))
            store(near_out, v1, add(s1, load(near_out, v1, lanes)))
            store(near_out, v2, add(s2, load(near_out, v2, lanes)))
            store(near_out, v3, add(s3, load(near_out, v3, lanes)))
            store(near_out, v4, add(s4, load(near_out, v4, lanes)))
            store(near_out, v5, add(s5, load(near_out, v5, lanes)))


@kernel
def _slice_columns(rows, constant, share, far, first, begin, end, group, group_vertices, group_weights,
                   point_vertices, point_weights, near_in, flat_in, stride, column, block, masses, lanes,
                   tail):  # fmt: skip
    """Some columns of a group's rows: what the lattices say, and its exponential unless that may overflow."""
    r0 = load(near_in, np.int64(group_vertices[group * 6]) * stride + column, lanes)
    r1 = load(near_in, np.int64(group_vertices[group * 6 + 1]) * stride + column, lanes)
    r2 = load(near_in, np.int64(group_vertices[group * 6 + 2]) * stride + column, lanes)
    r3 = load(near_in, np.int64(group_vertices[group * 6 + 3]) * stride + column, lanes)
    r4 = load(near_in, np.int64(group_vertices[group * 6 + 4]) * stride + column, lanes)
    r5 = load(near_in, np.int64(group_vertices[group * 6 + 5]) * stride + column, lanes)
    for p in range(begin, end):
        value = load(rows, p * stride + column, lanes)
        if not first:
            g0 = np.int64(point_vertices[p * 3]) * stride + column
            g1 = np.int64(point_vertices[p * 3 + 1]) * stride + column
            g2 = np.int64(point_vertices[p * 3 + 2]) * stride + column
            value = add(value, fill(-constant[p] * share, lanes))
            other = mul(fill(group_weights[p * 6], lanes), r0)
            value = fma(group_weights[p * 6 + 1], r1, value)
            other = fma(group_weights[p * 6 + 2], r2, other)
            value = fma(group_weights[p * 6 + 3], r3, value)
            other = fma(group_weights[p * 6 + 4], r4, other)
            value = fma(group_weights[p * 6 + 5], r5, value)
            other = fma(point_weights[p * 3], load(flat_in, g0, lanes), other)
            value = fma(point_weights[p * 3 + 1], load(flat_in, g1, lanes), value)
            other = fma(point_weights[p * 3 + 2], load(flat_in, g2, lanes), other)
            value = add(value, other)
        if not far:
            value = exp(value)
            mass = (p - begin) * len(tail)
            store(masses, mass, add(fold(value, tail), load(masses, mass, tail)))
        store(block, (p - begin) * stride + column, value)


@kernel
def _splat_columns(
    begin, end, group, group_vertices, group_weights, near_out, stride, column, block, scales, shares, lanes
):
    """Normalise some columns of a group's rows and add them to the 5-D vertices."""
    s0 = s1 = s2 = s3 = s4 = s5 = fill(np.float32(0), lanes)
    for p in range(begin, end):
        at = (p - begin) * stride + column
        value = fma(scales[p - begin], load(block, at, lanes), fill(shares[p - begin], lanes))
        store(block, at, value)
        s0 = fma(group_weights[p * 6], value, s0)
        s1 = fma(group_weights[p * 6 + 1], value, s1)
        s2 = fma(group_weights[p * 6 + 2], value, s2)
        s3 = fma(group_weights[p * 6 + 3], value, s3)
        s4 = fma(group_weights[p * 6 + 4], value, s4)
        s5 = fma(group_weights[p * 6 + 5], value, s5)
    v0 = np.int64(group_vertices[group * 6]) * stride + column
    v1 = np.int64(group_vertices[group * 6 + 1]) * stride + column
    v2 = np.int64(group_vertices[group * 6 + 2]) * stride + column
    v3 = np.int64(group_vertices[group * 6 + 3]) * stride + column
    v4 = np.int64(group_vertices[group * 6 + 4]) * stride + column
    v5 = np.int64(group_vertices[group * 6 + 5]) * stride + column
    store(near_out, v0, add(s0, load(near_out, v0, lanes)))
    store(near_out, v1, add(s1, load(near_out, v1, lanes)))
    store(near_out, v2, add(s2, load(near_out, v2, lanes)))
    store(near_out, v3, add(s3, load(near_out, v3, lanes)))
    store(near_out, v4, add(s4, load(near_out, v4, lanes)))
    store(near_out, v5, add(s5, load(near_out, v5, lanes)))


@kernel
def _splat_flat(weight, source, block, target, flat_out, lanes):
    """Add a piece of a pixel's row to one 2-D vertex."""
    store(flat_out, target, fma(weight, load(block, source, lanes), load(flat_out, target, lanes)))


@kernel
def sweep_wide(rows, constant, share, far, first, last, starts, group_vertices, group_weights, point_vertices,
               point_weights, near_in, flat_in, near_out, flat_out, stride, longest, lanes, tail):  # fmt: skip
    """`sweep` for rows of several registers: group by group, register by register, with the softmax in between.

    Further arguments: stride, the values in a row; longest, the pixels in a group at most; lanes and tail, the widths
    of the registers that a row is cut into, wide ones first.
    """
    width, narrow = len(lanes), len(tail)
    edge = stride - stride % width
    copies = np.float32(1) / share
    block = np.empty(longest * stride, np.float32)
    masses = np.empty(longest * narrow, np.float32)
    shares = np.empty(longest, np.float32)
    scales = np.empty(longest, np.float32)
    for group in range(starts.size - 1):
        begin, end = np.int64(starts[group]), np.int64(starts[group + 1])
        for p in range(end - begin):
            store(masses, p * narrow, fill(np.float32(0), tail))
        for column in range(0, edge, width):
            _slice_columns(
                rows, constant, share, far, first, begin, end, group, group_vertices, group_weights, point_vertices,
                point_weights, near_in, flat_in, stride, column, block, masses, lanes, tail,
            )  # fmt: skip
        for column in range(edge, stride, narrow):
            _slice_columns(
                rows, constant, share, far, first, begin, end, group, group_vertices, group_weights, point_vertices,
                point_weights, near_in, flat_in, stride, column, block, masses, tail, tail,
            )  # fmt: skip
        for p in range(end - begin):
            base = copies
            mass = total(load(masses, p * narrow, tail))
            if far:
                peak = np.float32(0)
                for i in range(p * stride, (p + 1) * stride):
                    peak = max(peak, block[i])
                base = copies * np.float32(np.exp(-peak))
                for i in range(p * stride, (p + 1) * stride):
                    block[i] = np.exp(block[i] - peak)
                    mass += block[i]
            scales[p] = np.float32(1) / (mass + base)
            shares[p] = mass * share * scales[p]
        if last:
            for p in range(end - begin):
                for i in range(stride):
                    rows[(begin + p) * stride + i] = block[p * stride + i] * scales[p]
            continue
        for column in range(0, edge, width):
            _splat_columns(
                begin, end, group, group_vertices, group_weights, near_out, stride, column, block, scales, shares, lanes
            )
        for column in range(edge, stride, narrow):
            _splat_columns(
                begin, end, group, group_vertices, group_weights, near_out, stride, column, block, scales, shares, tail
            )
        for p in range(begin, end):
            g0 = np.int64(point_vertices[p * 3]) * stride
            g1 = np.int64(point_vertices[p * 3 + 1]) * stride
            g2 = np.int64(point_vertices[p * 3 + 2]) * stride
            u0, u1, u2 = point_weights[p * 3], point_weights[p * 3 + 1], point_weights[p * 3 + 2]
            at = (p - begin) * stride
            for column in range(0, edge, width):
                _splat_flat(u0, at + column, block, g0 + column, flat_out, lanes)
                _splat_flat(u1, at + column, block, g1 + column, flat_out, lanes)
                _splat_flat(u2, at + column, block, g2 + column, flat_out, lanes)
            for column in range(edge, stride, narrow):
                _splat_flat(u0, at + column, block, g0 + column, flat_out, tail)
                _splat_flat(u1, at + column, block, g1 + column, flat_out, tail)
                _splat_flat(u2, at + column, block, g2 + column, flat_out, tail)
