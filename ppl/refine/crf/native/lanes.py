"""Short float32 vectors as values inside Numba kernels: one row of labels in a few registers.

`lanes` arguments are tuples whose length is the width, so that the width is part of a kernel's type: one compiled
variant per width and nothing else to keep in step. A width that is no power of two is held in pieces that are (20 as
16 and 4).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir  # type: ignore[import-untyped]
from numba.core import cgutils, types
from numba.core.datamodel import models
from numba.extending import intrinsic, register_model

__all__ = ["add", "exp", "fill", "fma", "fold", "highest", "load", "mul", "store", "sub", "total"]

_FLOAT = ir.FloatType()
_INT = ir.IntType(32)
_WIDEST = 16


def _pieces(width: int) -> list[int]:
    """Powers of two, largest first, that sum to the width."""
    pieces = [_WIDEST] * (width // _WIDEST)
    pieces += [1 << bit for bit in range(_WIDEST.bit_length() - 2, -1, -1) if width & (1 << bit)]
    return pieces


class LanesType(types.Type):
    """A vector of `width` float32 values."""

    def __init__(self, width: int) -> None:
        self.width = width
        super().__init__(name=f"lanes{width}")


@register_model(LanesType)
class _LanesModel(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, manager: Any, fe_type: LanesType) -> None:
        kinds = [ir.VectorType(_FLOAT, piece) for piece in _pieces(fe_type.width)]
        super().__init__(manager, fe_type, ir.LiteralStructType(kinds))


def _split(builder: Any, value: Any) -> list[Any]:
    return [builder.extract_value(value, i) for i in range(len(value.type.elements))]


def _join(builder: Any, pieces: list[Any]) -> Any:
    kind = ir.LiteralStructType([piece.type for piece in pieces])
    value = ir.Constant(kind, ir.Undefined)
    for i, piece in enumerate(pieces):
        value = builder.insert_value(value, piece, i)
    return value


def _constant(value: float, like: Any, element: ir.Type = _FLOAT) -> ir.Constant:
    return ir.Constant(ir.VectorType(element, like.count), [value] * like.count)


def _broadcast(builder: Any, scalar: Any, width: int) -> Any:
    vector = ir.VectorType(scalar.type, width)
    undefined = ir.Constant(vector, ir.Undefined)
    first = builder.insert_element(undefined, scalar, ir.Constant(_INT, 0))
    return builder.shuffle_vector(first, undefined, ir.Constant(ir.VectorType(_INT, width), [0] * width))


def _fused(builder: Any, left: Any, right: Any, addend: Any) -> Any:
    """Left * right + addend, in one rounding where the processor can."""
    kind = ir.FunctionType(left.type, [left.type] * 3)
    name = f"llvm.fmuladd.v{left.type.count}f32"
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), [left, right, addend])


def _pointers(context: Any, builder: Any, array_type: Any, array: Any, index: Any, width: int) -> list[Any]:
    data = builder.gep(context.make_array(array_type)(context, builder, array).data, [index])
    result, offset = [], 0
    for piece in _pieces(width):
        start = builder.gep(data, [ir.Constant(ir.IntType(64), offset)])
        result.append(builder.bitcast(start, ir.VectorType(_FLOAT, piece).as_pointer()))
        offset += piece
    return result


@intrinsic  # type: ignore[untyped-decorator]
def load(typingctx: Any, array: Any, index: Any, lanes: Any) -> Any:
    """The `len(lanes)` values of a flat contiguous float32 array that start at `index`."""
    result = LanesType(len(lanes))

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pointers = _pointers(context, builder, signature.args[0], args[0], args[1], result.width)
        return _join(builder, [builder.load(pointer, align=4) for pointer in pointers])

    return result(array, types.intp, lanes), codegen


@intrinsic  # type: ignore[untyped-decorator]
def store(typingctx: Any, array: Any, index: Any, value: Any) -> Any:
    """Write a vector to a flat contiguous float32 array from `index` on."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pointers = _pointers(context, builder, signature.args[0], args[0], args[1], value.width)
        for piece, pointer in zip(_split(builder, args[2]), pointers, strict=True):
            builder.store(piece, pointer, align=4)
        return context.get_dummy_value()

    return types.void(array, types.intp, value), codegen


@intrinsic  # type: ignore[untyped-decorator]
def fill(typingctx: Any, scalar: Any, lanes: Any) -> Any:
    """A vector of copies of one number."""
    result = LanesType(len(lanes))

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _join(builder, [_broadcast(builder, args[0], piece) for piece in _pieces(result.width)])

    return result(types.float32, lanes), codegen


@intrinsic  # type: ignore[untyped-decorator]
def fma(typingctx: Any, scalar: Any, vector: Any, addend: Any) -> Any:
    """The scalar times the vector, plus the addend."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pieces = zip(_split(builder, args[1]), _split(builder, args[2]), strict=True)
        return _join(
            builder,
            [_fused(builder, _broadcast(builder, args[0], left.type.count), left, right) for left, right in pieces],
        )

    return vector(types.float32, vector, vector), codegen


def _elementwise(operation: str, doc: str) -> Any:
    def typer(typingctx: Any, left: Any, right: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            pieces = zip(_split(builder, args[0]), _split(builder, args[1]), strict=True)
            return _join(builder, [getattr(builder, operation)(*pair) for pair in pieces])

        return left(left, left), codegen

    typer.__doc__ = doc
    return intrinsic(typer)


add = _elementwise("fadd", "left + right.")
sub = _elementwise("fsub", "left - right.")
mul = _elementwise("fmul", "left * right.")


def _add(builder: Any, left: Any, right: Any) -> Any:
    return builder.fadd(left, right)


def _larger(builder: Any, left: Any, right: Any) -> Any:
    return builder.select(builder.fcmp_ordered(">", left, right), left, right)


def _reduce(builder: Any, value: Any, until: int, emit: Callable[[Any, Any, Any], Any]) -> Any:
    """Combine pieces, and the lower with the upper half, until one piece of `until` lanes is left."""
    first, *others = _split(builder, value)
    for other in others:
        first = emit(builder, _halve(builder, first, other.type.count, emit), other)
    return _halve(builder, first, until, emit)


def _halve(builder: Any, value: Any, until: int, emit: Callable[[Any, Any, Any], Any]) -> Any:
    while value.type.count > until:
        width = value.type.count // 2
        undefined, half = ir.Constant(value.type, ir.Undefined), ir.VectorType(_INT, width)
        low = builder.shuffle_vector(value, undefined, ir.Constant(half, list(range(width))))
        high = builder.shuffle_vector(value, undefined, ir.Constant(half, list(range(width, 2 * width))))
        value = emit(builder, low, high)
    return value


@intrinsic  # type: ignore[untyped-decorator]
def fold(typingctx: Any, vector: Any, lanes: Any) -> Any:
    """The sums of the lanes that coincide when a vector is halved down to `len(lanes)`, a power of two."""
    result = LanesType(len(lanes))

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _join(builder, [_reduce(builder, args[0], result.width, _add)])

    return result(vector, lanes), codegen


def _reduction(emit: Callable[[Any, Any, Any], Any], doc: str) -> Any:
    def typer(typingctx: Any, vector: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return builder.extract_element(_reduce(builder, args[0], 1, emit), ir.Constant(_INT, 0))

        return types.float32(vector), codegen

    typer.__doc__ = doc
    return intrinsic(typer)


total = _reduction(_add, "The sum of the lanes.")
highest = _reduction(_larger, "The largest lane.")


def _exp_piece(builder: Any, value: Any) -> Any:
    kind = value.type
    integers = ir.VectorType(_INT, kind.count)
    low, high = _constant(-87.0, kind), _constant(88.0, kind)
    value = builder.select(builder.fcmp_ordered(">", value, low), value, low)
    value = builder.select(builder.fcmp_ordered("<", value, high), value, high)
    # Adding 1.5 * 2^23 rounds to an integer and leaves it in the lowest bits.
    magic = _constant(12582912.0, kind)
    shifted = _fused(builder, value, _constant(1.44269504088896341, kind), magic)
    whole = builder.fsub(shifted, magic)
    # log 2 in two parts, the first of which is exact when multiplied by a small integer.
    rest = _fused(builder, whole, _constant(-0.693359375, kind), value)
    rest = _fused(builder, whole, _constant(2.12194440e-4, kind), rest)
    result = _constant(1.9875691500e-4, kind)
    for coefficient in (1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1):
        result = _fused(builder, result, rest, _constant(coefficient, kind))
    result = _fused(builder, result, builder.fmul(rest, rest), builder.fadd(rest, _constant(1.0, kind)))
    exponent = builder.sub(builder.bitcast(shifted, integers), builder.bitcast(magic, integers))
    biased = builder.add(exponent, _constant(127, kind, _INT))
    return builder.fmul(result, builder.bitcast(builder.shl(biased, _constant(23, kind, _INT)), kind))


@intrinsic  # type: ignore[untyped-decorator]
def exp(typingctx: Any, vector: Any) -> Any:
    """The exponential of every lane, to about one unit in the last place, with the argument held in -87..88.

    exp(x) = 2^n exp(r) with n the integer nearest to x / log 2; exp(r) is a minimax polynomial on |r| <= log(2)/2.
    """

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _join(builder, [_exp_piece(builder, piece) for piece in _split(builder, args[0])])

    return vector(vector), codegen
