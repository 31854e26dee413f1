"""The mean field itself: splat, blur and slice of label rows on the two lattices, and the softmax between them.

A row holds all labels but the last, whose probability follows from the sum, padded to whole registers. What is
filtered is q_l + (sum of q over the row) / copies, so that a slice yields at once how much more a label gains from its
neighbours than the last one does.
"""

# Kernels are typed by their decorators.
# mypy: allow-untyped-defs

from __future__ import annotations

from ppl.refine.kernel import kernel
from ppl.refine.kernel.operations import (
    absolute,
    add,
    exp,
    fill,
    fma,
    fold,
    highest,
    i64,
    load,
    maximum,
    mul,
    sqrt,
    store,
    sub,
    total,
)

__all__ = ["blur", "blur_wide", "pack", "slice_ones", "splat_ones", "sweep", "sweep_wide", "unpack"]

_TOUCHED = {"i32": "starts group_vertices point_vertices", "f32": "group_weights point_weights"}


@kernel(f32="values", i32="links", i64="ends", constants="width")
def blur(values, count, links, ends, axes, width):
    """Mix every vertex with half of either neighbour, axis after axis, in place; for rows of a single register.

    Row `count` of `values`, where a chain closes, is zero and stays so; what would be written there goes to the next.
    """
    for axis in range(axes):
        begin, end = ends[axis], ends[axis + 1]
        if begin == end:
            continue
        vertex = i64(links[begin])
        previous = fill(0.0, width)
        current = load(values, vertex * width, width)
        for i in range(begin, end):
            after = i64(links[i + 1]) if i + 1 < end else count
            following = load(values, after * width, width)
            target = vertex + i64(vertex == count)
            store(values, target * width, fma(0.5, add(previous, following), current))
            previous = current
            current = following
            vertex = after


@kernel(f32="values earlier", constants="width", inlined=True)
def _blur_columns(values, earlier, column, at, after, target, width):
    """Some columns of one step along a chain; `earlier` keeps what the row before was."""
    current = load(values, at + column, width)
    sides = add(load(earlier, column, width), load(values, after + column, width))
    store(earlier, column, current)
    store(values, target + column, fma(0.5, sides, current))


@kernel(f32="values earlier", i32="links", i64="ends", constants="width narrow")
def blur_wide(values, count, links, ends, axes, stride, earlier, width, narrow):
    """`blur` for rows of several registers, wide ones first; `earlier` is scratch for one row."""
    edge = stride - stride % width
    for axis in range(axes):
        begin, end = ends[axis], ends[axis + 1]
        if begin == end:
            continue
        vertex = i64(links[begin])
        for column in range(stride):
            earlier[column] = 0
        for i in range(begin, end):
            after = i64(links[i + 1]) if i + 1 < end else count
            at, to = vertex * stride, (vertex + i64(vertex == count)) * stride
            for column in range(0, edge, width):
                _blur_columns(values, earlier, column, at, after * stride, to, width)
            for column in range(edge, stride, narrow):
                _blur_columns(values, earlier, column, at, after * stride, to, narrow)
            vertex = after


@kernel(i32=_TOUCHED["i32"], f32=_TOUCHED["f32"] + " near flat")
def splat_ones(groups, starts, group_vertices, group_weights, point_vertices, point_weights, near, flat):
    """Splat the constant 1 onto both lattices, whose values are given as zeros."""
    for group in range(groups):
        s0 = s1 = s2 = s3 = s4 = s5 = 0.0
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


@kernel(
    i32=_TOUCHED["i32"], f32=_TOUCHED["f32"] + " near flat constant", returns="f32",
    reals="near_alpha flat_alpha near_compat flat_compat",
)  # fmt: skip
def slice_ones(groups, starts, group_vertices, group_weights, point_vertices, point_weights, near, flat, normalise,
               near_alpha, flat_alpha, near_compat, flat_compat, constant):  # fmt: skip
    """Slice what `splat_ones` and two blurs have left, for one of two purposes.

    With `normalise`, fold 1 / sqrt(K 1) and the square root of alpha times the compatibility into the weights: slicing
    and splatting then apply them once each. Without, write what all labels together gain to `constant`.

    Returns:
        The largest value of `constant`.
    """
    tiny = 1e-20
    near_root = sqrt(near_alpha * near_compat)
    flat_root = sqrt(flat_alpha * flat_compat)
    largest = 0.0
    for group in range(groups):
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
                factor = near_root / sqrt(mass * near_alpha + tiny)
                for k in range(6):
                    group_weights[at + k] *= factor
                factor = flat_root / sqrt(flat_mass * flat_alpha + tiny)
                for k in range(3):
                    point_weights[to + k] *= factor
            else:
                gain = mass + flat_mass
                constant[p] = gain
                largest = maximum(largest, gain)
    return largest


@kernel(f32="unary rows", i32="order", returns="f32")
def pack(labels, pixels, unary, order, stride, rows):
    """Rows of energy differences to the last label, in the order of the lattice; returns the largest in magnitude."""
    largest = 0.0
    for p in range(pixels):
        pixel = i64(order[p])
        last = unary[(labels - 1) * pixels + pixel]
        for label in range(labels - 1):
            value = last - unary[label * pixels + pixel]
            rows[p * stride + label] = value
            largest = maximum(largest, absolute(value))
        for label in range(labels - 1, stride):
            rows[p * stride + label] = -1e4
    return largest


@kernel(f32="rows result", i32="order", reals="copies")
def unpack(labels, pixels, rows, order, stride, copies, result):
    """Planes of probabilities in raster order, the last label among them."""
    for p in range(pixels):
        pixel = i64(order[p])
        rest = 1.0
        for label in range(labels - 1):
            value = rows[p * stride + label]
            result[label * pixels + pixel] = value
            rest -= value
        result[(labels - 1) * pixels + pixel] = maximum(rest, 0.0) / copies


@kernel(
    i32=_TOUCHED["i32"], f32=_TOUCHED["f32"] + " rows constant near_in flat_in near_out flat_out", reals="share",
    constants="width",
)  # fmt: skip
def sweep(rows, constant, share, far, first, last, groups, starts, group_vertices, group_weights, point_vertices,
          point_weights, near_in, flat_in, near_out, flat_out, width):  # fmt: skip
    """One mean-field step over all pixels, for rows of a single register.

    What it takes:
        rows: energy differences, in the last step overwritten by probabilities.
        constant: what all labels together gain, per position; share: 1 / copies.
        far: whether exponents may overflow, so that the largest is taken out first.
        first, last: no slice before the first softmax, no splat after the last.
        near_in, near_out: rows of the 5-D vertices; flat_in, flat_out: of the 2-D vertices.
    """
    copies = 1.0 / share
    zero = fill(0.0, width)
    for group in range(groups):
        v0 = i64(group_vertices[group * 6]) * width
        v1 = i64(group_vertices[group * 6 + 1]) * width
        v2 = i64(group_vertices[group * 6 + 2]) * width
        v3 = i64(group_vertices[group * 6 + 3]) * width
        v4 = i64(group_vertices[group * 6 + 4]) * width
        v5 = i64(group_vertices[group * 6 + 5]) * width
        r0 = load(near_in, v0, width)
        r1 = load(near_in, v1, width)
        r2 = load(near_in, v2, width)
        r3 = load(near_in, v3, width)
        r4 = load(near_in, v4, width)
        r5 = load(near_in, v5, width)
        s0 = s1 = s2 = s3 = s4 = s5 = zero
        for p in range(starts[group], starts[group + 1]):
            w0, w1, w2 = group_weights[p * 6], group_weights[p * 6 + 1], group_weights[p * 6 + 2]
            w3, w4, w5 = group_weights[p * 6 + 3], group_weights[p * 6 + 4], group_weights[p * 6 + 5]
            g0 = i64(point_vertices[p * 3]) * width
            g1 = i64(point_vertices[p * 3 + 1]) * width
            g2 = i64(point_vertices[p * 3 + 2]) * width
            u0, u1, u2 = point_weights[p * 3], point_weights[p * 3 + 1], point_weights[p * 3 + 2]
            value = load(rows, p * width, width)
            if not first:
                value = add(value, fill(-constant[p] * share, width))
                other = mul(fill(w0, width), r0)
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
                top = maximum(highest(value), 0.0)
                value = sub(value, fill(top, width))
                base = copies * exp(-top)
            value = exp(value)
            mass = total(value)
            scale = 1.0 / (mass + base)
            if last:
                store(rows, p * width, mul(value, fill(scale, width)))
            else:
                value = mul(add(value, fill(mass * share, width)), fill(scale, width))
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


@kernel(
    i32="group_vertices point_vertices",
    f32="rows constant group_weights point_weights near_in flat_in block masses", reals="share",
    constants="width narrow", inlined=True,
)  # fmt: skip
def _slice_columns(rows, constant, share, far, first, begin, end, group, group_vertices, group_weights,
                   point_vertices, point_weights, near_in, flat_in, stride, column, block, masses, width,
                   narrow):  # fmt: skip
    """Some columns of a group's rows: what the lattices say, and its exponential unless that may overflow."""
    r0 = load(near_in, i64(group_vertices[group * 6]) * stride + column, width)
    r1 = load(near_in, i64(group_vertices[group * 6 + 1]) * stride + column, width)
    r2 = load(near_in, i64(group_vertices[group * 6 + 2]) * stride + column, width)
    r3 = load(near_in, i64(group_vertices[group * 6 + 3]) * stride + column, width)
    r4 = load(near_in, i64(group_vertices[group * 6 + 4]) * stride + column, width)
    r5 = load(near_in, i64(group_vertices[group * 6 + 5]) * stride + column, width)
    for p in range(begin, end):
        value = load(rows, p * stride + column, width)
        if not first:
            g0 = i64(point_vertices[p * 3]) * stride + column
            g1 = i64(point_vertices[p * 3 + 1]) * stride + column
            g2 = i64(point_vertices[p * 3 + 2]) * stride + column
            value = add(value, fill(-constant[p] * share, width))
            other = mul(fill(group_weights[p * 6], width), r0)
            value = fma(group_weights[p * 6 + 1], r1, value)
            other = fma(group_weights[p * 6 + 2], r2, other)
            value = fma(group_weights[p * 6 + 3], r3, value)
            other = fma(group_weights[p * 6 + 4], r4, other)
            value = fma(group_weights[p * 6 + 5], r5, value)
            other = fma(point_weights[p * 3], load(flat_in, g0, width), other)
            value = fma(point_weights[p * 3 + 1], load(flat_in, g1, width), value)
            other = fma(point_weights[p * 3 + 2], load(flat_in, g2, width), other)
            value = add(value, other)
        if not far:
            value = exp(value)
            mass = (p - begin) * narrow
            store(masses, mass, add(fold(value, narrow), load(masses, mass, narrow)))
        store(block, (p - begin) * stride + column, value)


@kernel(
    i32="group_vertices", f32="group_weights near_out block scales shares", constants="width", inlined=True
)  # fmt: skip
def _splat_columns(
    begin, end, group, group_vertices, group_weights, near_out, stride, column, block, scales, shares, width
):
    """Normalise some columns of a group's rows and add them to the 5-D vertices."""
    s0 = s1 = s2 = s3 = s4 = s5 = fill(0.0, width)
    for p in range(begin, end):
        at = (p - begin) * stride + column
        value = fma(scales[p - begin], load(block, at, width), fill(shares[p - begin], width))
        store(block, at, value)
        s0 = fma(group_weights[p * 6], value, s0)
        s1 = fma(group_weights[p * 6 + 1], value, s1)
        s2 = fma(group_weights[p * 6 + 2], value, s2)
        s3 = fma(group_weights[p * 6 + 3], value, s3)
        s4 = fma(group_weights[p * 6 + 4], value, s4)
        s5 = fma(group_weights[p * 6 + 5], value, s5)
    v0 = i64(group_vertices[group * 6]) * stride + column
    v1 = i64(group_vertices[group * 6 + 1]) * stride + column
    v2 = i64(group_vertices[group * 6 + 2]) * stride + column
    v3 = i64(group_vertices[group * 6 + 3]) * stride + column
    v4 = i64(group_vertices[group * 6 + 4]) * stride + column
    v5 = i64(group_vertices[group * 6 + 5]) * stride + column
    store(near_out, v0, add(s0, load(near_out, v0, width)))
    store(near_out, v1, add(s1, load(near_out, v1, width)))
    store(near_out, v2, add(s2, load(near_out, v2, width)))
    store(near_out, v3, add(s3, load(near_out, v3, width)))
    store(near_out, v4, add(s4, load(near_out, v4, width)))
    store(near_out, v5, add(s5, load(near_out, v5, width)))


@kernel(f32="block flat_out", reals="weight", constants="width", inlined=True)
def _splat_flat(weight, source, block, target, flat_out, width):
    """Add a piece of a pixel's row to one 2-D vertex."""
    store(flat_out, target, fma(weight, load(block, source, width), load(flat_out, target, width)))


@kernel(
    i32=_TOUCHED["i32"],
    f32=_TOUCHED["f32"] + " rows constant near_in flat_in near_out flat_out block masses shares scales", reals="share",
    constants="width narrow",
)  # fmt: skip
def sweep_wide(rows, constant, share, far, first, last, groups, starts, group_vertices, group_weights, point_vertices,
               point_weights, near_in, flat_in, near_out, flat_out, stride, block, masses, shares, scales, width,
               narrow):  # fmt: skip
    """`sweep` for rows of several registers: group by group, register by register, with the softmax in between.

    Further arguments: stride, the values in a row; block (longest group, stride), masses (longest group, narrow),
    shares and scales (longest group,), scratch; width and narrow, of the registers that a row is cut into, wide first.
    """
    edge = stride - stride % width
    copies = 1.0 / share
    for group in range(groups):
        begin, end = i64(starts[group]), i64(starts[group + 1])
        for p in range(end - begin):
            store(masses, p * narrow, fill(0.0, narrow))
        for column in range(0, edge, width):
            _slice_columns(
                rows, constant, share, far, first, begin, end, group, group_vertices, group_weights, point_vertices,
                point_weights, near_in, flat_in, stride, column, block, masses, width, narrow,
            )  # fmt: skip
        for column in range(edge, stride, narrow):
            _slice_columns(
                rows, constant, share, far, first, begin, end, group, group_vertices, group_weights, point_vertices,
                point_weights, near_in, flat_in, stride, column, block, masses, narrow, narrow,
            )  # fmt: skip
        for p in range(end - begin):
            base = copies
            mass = total(load(masses, p * narrow, narrow))
            if far:
                peak = 0.0
                for i in range(p * stride, (p + 1) * stride):
                    peak = maximum(peak, block[i])
                base = copies * exp(-peak)
                for i in range(p * stride, (p + 1) * stride):
                    block[i] = exp(block[i] - peak)
                    mass += block[i]
            scales[p] = 1.0 / (mass + base)
            shares[p] = mass * share * scales[p]
        if last:
            for p in range(end - begin):
                for i in range(stride):
                    rows[(begin + p) * stride + i] = block[p * stride + i] * scales[p]
            continue
        for column in range(0, edge, width):
            _splat_columns(
                begin, end, group, group_vertices, group_weights, near_out, stride, column, block, scales, shares, width
            )
        for column in range(edge, stride, narrow):
            _splat_columns(
                begin,
                end,
                group,
                group_vertices,
                group_weights,
                near_out,
                stride,
                column,
                block,
                scales,
                shares,
                narrow,
            )
        for p in range(begin, end):
            g0 = i64(point_vertices[p * 3]) * stride
            g1 = i64(point_vertices[p * 3 + 1]) * stride
            g2 = i64(point_vertices[p * 3 + 2]) * stride
            u0, u1, u2 = point_weights[p * 3], point_weights[p * 3 + 1], point_weights[p * 3 + 2]
            at = (p - begin) * stride
            for column in range(0, edge, width):
                _splat_flat(u0, at + column, block, g0 + column, flat_out, width)
                _splat_flat(u1, at + column, block, g1 + column, flat_out, width)
                _splat_flat(u2, at + column, block, g2 + column, flat_out, width)
            for column in range(edge, stride, narrow):
                _splat_flat(u0, at + column, block, g0 + column, flat_out, narrow)
                _splat_flat(u1, at + column, block, g1 + column, flat_out, narrow)
                _splat_flat(u2, at + column, block, g2 + column, flat_out, narrow)
