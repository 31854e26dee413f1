"""Short float32 vectors for numba kernels: one vector holds the row of labels of one pixel or lattice vertex.

Numba has no type for a row whose length is known when the kernel is compiled, and its arrays stay in memory. A `Vector`
stays in registers. It is stored as LLVM vectors whose lengths are powers of two (20 is 16 and 4), because LLVM rounds
other lengths up.
"""

# Numba infers the types; llvmlite has none.
# mypy: allow-untyped-defs, allow-untyped-calls

from __future__ import annotations

from functools import reduce
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic, models, register_model

__all__ = ["add", "exp", "fill", "fma", "highest", "load", "mul", "store", "sub", "total"]

_F32, _I32 = ir.FloatType(), ir.IntType(32)
_WIDEST = 16


class Vector(types.Type):  # type: ignore[misc]
    """The numba type of a vector of `width` float32 values."""

    def __init__(self, width: int) -> None:
        self.width = width
        super().__init__(f"Vector({width})")


def _lengths(width: int) -> list[int]:
    """Return powers of two, largest first, that sum to the width."""
    lengths = [_WIDEST] * (width // _WIDEST)
    return lengths + [1 << bit for bit in range(_WIDEST.bit_length() - 2, -1, -1) if width & (1 << bit)]


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, manager: Any, kind: Any) -> None:
        pieces = [ir.VectorType(_F32, length) for length in _lengths(kind.width)]
        super().__init__(manager, kind, ir.LiteralStructType(pieces))


def _unpack(builder, kind, value):
    """Return the LLVM vectors of a `Vector`."""
    return [builder.extract_value(value, i) for i in range(len(_lengths(kind.width)))]


def _pack(builder, pieces):
    """Return the `Vector` that consists of these LLVM vectors."""
    result = ir.Constant(ir.LiteralStructType([piece.type for piece in pieces]), ir.Undefined)
    for i, piece in enumerate(pieces):
        result = builder.insert_value(result, piece, i)
    return result


def _broadcast(builder, scalar, length):
    undefined = ir.Constant(ir.VectorType(_F32, length), ir.Undefined)
    first = builder.insert_element(undefined, scalar, _I32(0))
    return builder.shuffle_vector(first, undefined, ir.Constant(ir.VectorType(_I32, length), [0] * length))


def _pointers(context, builder, kind, array, index, width):
    """Yield a pointer to each piece of the `width` values of an array from `index` on."""
    data = context.make_array(kind)(context, builder, array).data
    for length in _lengths(width):
        yield builder.bitcast(builder.gep(data, [index]), ir.VectorType(_F32, length).as_pointer()), length
        index = builder.add(index, ir.Constant(index.type, length))


@intrinsic(prefer_literal=True)
def load(typing, array, index, width):
    """Return the `width` values of a float32 array from `index` on; `width` is a constant."""
    if not isinstance(width, types.IntegerLiteral):
        return None
    count = width.literal_value

    def emit(context, builder, signature, arguments):
        array, index, _ = arguments
        places = _pointers(context, builder, signature.args[0], array, index, count)
        kinds = ((place, ir.VectorType(_F32, length)) for place, length in places)
        return _pack(builder, [builder.load(place, align=4, typ=kind) for place, kind in kinds])

    return Vector(count)(array, types.intp, width), emit


@intrinsic
def store(typing, array, index, vector):
    """Write a vector to a float32 array from `index` on."""

    def emit(context, builder, signature, arguments):
        kind = signature.args[2]
        array, index, vector = arguments
        places = _pointers(context, builder, signature.args[0], array, index, kind.width)
        for (place, _), piece in zip(places, _unpack(builder, kind, vector), strict=True):
            builder.store(piece, place, align=4)
        return context.get_dummy_value()

    return types.void(array, types.intp, vector), emit


@intrinsic(prefer_literal=True)
def fill(typing, scalar, width):
    """Return a vector of `width` copies of a number; `width` is a constant."""
    if not isinstance(width, types.IntegerLiteral):
        return None
    lengths = _lengths(width.literal_value)

    def emit(context, builder, signature, arguments):
        return _pack(builder, [_broadcast(builder, arguments[0], length) for length in lengths])

    return Vector(width.literal_value)(types.float32, width), emit


def _elementwise(operation):
    """Return the code of a function of vectors; a number among the arguments stands for a vector of copies."""

    def emit(context, builder, signature, arguments):
        lengths = _lengths(signature.return_type.width)
        columns = [
            _unpack(builder, kind, value)
            if isinstance(kind, Vector)
            else [_broadcast(builder, value, length) for length in lengths]
            for kind, value in zip(signature.args, arguments, strict=True)
        ]
        return _pack(builder, [operation(builder, *pieces) for pieces in zip(*columns, strict=True)])

    return emit


@intrinsic
def add(typing, left, right):
    """Return the sum of two vectors."""
    return left(left, right), _elementwise(lambda builder, a, b: builder.fadd(a, b))


@intrinsic
def sub(typing, left, right):
    """Return the difference of a vector and a number."""
    return left(left, types.float32), _elementwise(lambda builder, a, b: builder.fsub(a, b))


@intrinsic
def mul(typing, scalar, vector):
    """Return the product of a number and a vector."""
    return vector(types.float32, vector), _elementwise(lambda builder, a, b: builder.fmul(a, b))


def _fused(builder, left, right, addend):
    name = f"llvm.fmuladd.v{left.type.count}f32"
    function = builder.module.globals.get(name)
    if function is None:
        function = ir.Function(builder.module, ir.FunctionType(left.type, [left.type] * 3), name)
    return builder.call(function, [left, right, addend])


@intrinsic
def fma(typing, scalar, vector, addend):
    """Return the product of a number and a vector plus a vector, rounded once where the processor can."""
    return vector(types.float32, vector, vector), _elementwise(_fused)


def _halve(builder, value, until, combine):
    while value.type.count > until:
        width = value.type.count // 2
        undefined, half = ir.Constant(value.type, ir.Undefined), ir.VectorType(_I32, width)
        low = builder.shuffle_vector(value, undefined, ir.Constant(half, list(range(width))))
        high = builder.shuffle_vector(value, undefined, ir.Constant(half, list(range(width, 2 * width))))
        value = combine(builder, low, high)
    return value


def _reduced(combine):
    """Return the code that combines the pieces of a vector, then its halves until one lane is left."""

    def join(builder, value, other):
        return combine(builder, _halve(builder, value, other.type.count, combine), other)

    def emit(context, builder, signature, arguments):
        pieces = _unpack(builder, signature.args[0], arguments[0])
        joined = reduce(lambda value, other: join(builder, value, other), pieces)
        return builder.extract_element(_halve(builder, joined, 1, combine), _I32(0))

    return emit


@intrinsic
def total(typing, vector):
    """Return the sum of the lanes."""
    return types.float32(vector), _reduced(lambda builder, a, b: builder.fadd(a, b))


@intrinsic
def highest(typing, vector):
    """Return the largest lane."""
    code = _reduced(lambda builder, a, b: builder.select(builder.fcmp_ordered(">", a, b), a, b))
    return types.float32(vector), code


def _exp(builder, value):
    kind = value.type
    integers = ir.VectorType(_I32, kind.count)

    def constant(number, like=kind):
        return ir.Constant(like, [number] * like.count)

    low, high = constant(-87.0), constant(88.0)
    value = builder.select(builder.fcmp_ordered(">", value, low), value, low)
    value = builder.select(builder.fcmp_ordered("<", value, high), value, high)
    # Adding 1.5 * 2^23 rounds to an integer and leaves that integer in the lowest bits.
    magic = constant(12582912.0)
    shifted = _fused(builder, value, constant(1.44269504088896341), magic)
    whole = builder.fsub(shifted, magic)
    # log 2 is split into two parts: multiplying the first by a small integer is exact.
    rest = _fused(builder, whole, constant(-0.693359375), value)
    rest = _fused(builder, whole, constant(2.12194440e-4), rest)
    result = constant(1.9875691500e-4)
    for coefficient in (1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1):
        result = _fused(builder, result, rest, constant(coefficient))
    result = _fused(builder, result, builder.fmul(rest, rest), builder.fadd(rest, constant(1.0)))
    exponent = builder.sub(builder.bitcast(shifted, integers), builder.bitcast(magic, integers))
    biased = builder.add(exponent, constant(127, integers))
    return builder.fmul(result, builder.bitcast(builder.shl(biased, constant(23, integers)), kind))


@intrinsic
def exp(typing, vector):
    """Return the exponential of every lane, to about one unit in the last place, for lanes in -87..88.

    exp(x) = 2^n exp(r) with n the integer nearest to x / log 2; exp(r) is a minimax polynomial on |r| <= log(2)/2
    (Cephes, expf).
    """
    return vector(vector), _elementwise(_exp)
