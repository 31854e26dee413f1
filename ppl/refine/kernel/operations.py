"""What kernels can call beside each other: casts, and short float32 vectors that hold a row of labels in registers.

A vector is a tuple of LLVM vectors whose lengths are powers of two (20 is 16 and 4), because LLVM rounds others up.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir

from ppl.refine.kernel.language import F32, I32, I64, as_type, operation

__all__ = [
    "absolute",
    "add",
    "exp",
    "f32",
    "fill",
    "fma",
    "fold",
    "highest",
    "i32",
    "i64",
    "load",
    "maximum",
    "mul",
    "sqrt",
    "store",
    "sub",
    "total",
]

_WIDEST = 16


@operation
def f32(builder: Any, value: Any) -> Any:
    """A number as float32."""
    whole = isinstance(value, ir.Value) and isinstance(value.type, ir.IntType)
    return builder.sitofp(value, F32) if whole else as_type(builder, value, F32)


@operation
def i32(builder: Any, value: Any) -> Any:
    """A number as int32; reals are cut towards zero."""
    return _whole(builder, value, I32)


@operation
def i64(builder: Any, value: Any) -> Any:
    """A number as int64; reals are cut towards zero."""
    return _whole(builder, value, I64)


def _whole(builder: Any, value: Any, kind: Any) -> Any:
    real = isinstance(value, ir.Value) and value.type == F32
    return builder.fptosi(value, kind) if real else as_type(builder, value, kind)


@operation
def maximum(builder: Any, left: Any, right: Any) -> Any:
    """The larger of two numbers, of which at most one is constant."""
    kind = left.type if isinstance(left, ir.Value) else right.type
    left, right = as_type(builder, left, kind), as_type(builder, right, kind)
    compare = builder.fcmp_ordered if kind == F32 else builder.icmp_signed
    return builder.select(compare(">", left, right), left, right)


@operation
def absolute(builder: Any, value: Any) -> Any:
    """The magnitude of a real."""
    return _intrinsic(builder, "fabs", value)


@operation
def sqrt(builder: Any, value: Any) -> Any:
    """The square root of a real."""
    return _intrinsic(builder, "sqrt", value)


def _intrinsic(builder: Any, name: str, *values: Any) -> Any:
    kind = values[0].type
    suffix = f"v{kind.count}f32" if isinstance(kind, ir.VectorType) else "f32"
    function = builder.module.globals.get(f"llvm.{name}.{suffix}")
    if function is None:
        function = ir.Function(builder.module, ir.FunctionType(kind, [kind] * len(values)), f"llvm.{name}.{suffix}")
    return builder.call(function, values)


def _lengths(width: int) -> list[int]:
    """Powers of two, largest first, that sum to the width."""
    lengths = [_WIDEST] * (width // _WIDEST)
    return lengths + [1 << bit for bit in range(_WIDEST.bit_length() - 2, -1, -1) if width & (1 << bit)]


def _pointers(builder: Any, array: Any, index: Any, lengths: list[int]) -> list[Any]:
    result, offset = [], as_type(builder, index, I64)
    for length in lengths:
        start = builder.gep(array, [offset], inbounds=True)
        result.append(builder.bitcast(start, ir.VectorType(F32, length).as_pointer()))
        offset = builder.add(offset, I64(length))
    return result


@operation
def load(builder: Any, array: Any, index: Any, width: int) -> tuple[Any, ...]:
    """The `width` values of a float32 array that start at `index`."""
    return tuple(builder.load(pointer, align=4) for pointer in _pointers(builder, array, index, _lengths(width)))


@operation
def store(builder: Any, array: Any, index: Any, value: tuple[Any, ...]) -> None:
    """Write a vector to a float32 array from `index` on."""
    for piece, pointer in zip(value, _pointers(builder, array, index, [p.type.count for p in value]), strict=True):
        builder.store(piece, pointer, align=4)


@operation
def fill(builder: Any, scalar: Any, width: int) -> tuple[Any, ...]:
    """A vector of copies of one number."""
    value = as_type(builder, scalar, F32)
    return tuple(_broadcast(builder, value, length) for length in _lengths(width))


def _broadcast(builder: Any, scalar: Any, length: int) -> Any:
    undefined = ir.Constant(ir.VectorType(F32, length), ir.Undefined)
    first = builder.insert_element(undefined, scalar, I32(0))
    return builder.shuffle_vector(first, undefined, ir.Constant(ir.VectorType(I32, length), [0] * length))


@operation
def fma(builder: Any, scalar: Any, vector: Any, addend: Any) -> Any:
    """The scalar times the number or vector, plus the addend, in one rounding where the processor can."""
    value = as_type(builder, scalar, F32)
    if not isinstance(vector, tuple):
        return _intrinsic(builder, "fmuladd", value, vector, addend)
    return tuple(
        _intrinsic(builder, "fmuladd", _broadcast(builder, value, left.type.count), left, right)
        for left, right in zip(vector, addend, strict=True)
    )


@operation
def add(builder: Any, left: tuple[Any, ...], right: tuple[Any, ...]) -> tuple[Any, ...]:
    """Left plus right."""
    return tuple(builder.fadd(*pair) for pair in zip(left, right, strict=True))


@operation
def sub(builder: Any, left: tuple[Any, ...], right: tuple[Any, ...]) -> tuple[Any, ...]:
    """Left minus right."""
    return tuple(builder.fsub(*pair) for pair in zip(left, right, strict=True))


@operation
def mul(builder: Any, left: tuple[Any, ...], right: tuple[Any, ...]) -> tuple[Any, ...]:
    """Left times right."""
    return tuple(builder.fmul(*pair) for pair in zip(left, right, strict=True))


@operation
def fold(builder: Any, vector: tuple[Any, ...], width: int) -> tuple[Any, ...]:
    """The sums of the lanes that coincide when a vector is halved down to `width`, a power of two."""
    return (_reduce(builder, vector, width, builder.fadd),)


@operation
def total(builder: Any, vector: tuple[Any, ...]) -> Any:
    """The sum of the lanes."""
    return builder.extract_element(_reduce(builder, vector, 1, builder.fadd), I32(0))


@operation
def highest(builder: Any, vector: tuple[Any, ...]) -> Any:
    """The largest lane."""

    def larger(left: Any, right: Any) -> Any:
        return builder.select(builder.fcmp_ordered(">", left, right), left, right)

    return builder.extract_element(_reduce(builder, vector, 1, larger), I32(0))


def _reduce(builder: Any, vector: tuple[Any, ...], until: int, emit: Callable[[Any, Any], Any]) -> Any:
    """Combine pieces, and the lower with the upper half, until one piece of `until` lanes is left."""
    value, *others = vector
    for other in others:
        value = emit(_halve(builder, value, other.type.count, emit), other)
    return _halve(builder, value, until, emit)


def _halve(builder: Any, value: Any, until: int, emit: Callable[[Any, Any], Any]) -> Any:
    while value.type.count > until:
        width = value.type.count // 2
        undefined, half = ir.Constant(value.type, ir.Undefined), ir.VectorType(I32, width)
        low = builder.shuffle_vector(value, undefined, ir.Constant(half, list(range(width))))
        high = builder.shuffle_vector(value, undefined, ir.Constant(half, list(range(width, 2 * width))))
        value = emit(low, high)
    return value


@operation
def exp(builder: Any, value: Any) -> Any:
    """The exponential of a number or of every lane, to about one unit in the last place, its argument in -87..88.

    exp(x) = 2^n exp(r) with n the integer nearest to x / log 2; exp(r) is a minimax polynomial on |r| <= log(2)/2.
    """
    return tuple(_exp(builder, piece) for piece in value) if isinstance(value, tuple) else _exp(builder, value)


def _exp(builder: Any, value: Any) -> Any:
    kind = value.type
    integers = ir.VectorType(I32, kind.count) if isinstance(kind, ir.VectorType) else I32

    def constant(number: float, like: Any = kind) -> Any:
        return ir.Constant(like, [number] * like.count if isinstance(like, ir.VectorType) else number)

    def fused(left: Any, right: Any, addend: Any) -> Any:
        return _intrinsic(builder, "fmuladd", left, right, addend)

    low, high = constant(-87.0), constant(88.0)
    value = builder.select(builder.fcmp_ordered(">", value, low), value, low)
    value = builder.select(builder.fcmp_ordered("<", value, high), value, high)
    # Adding 1.5 * 2^23 rounds to an integer and leaves it in the lowest bits.
    magic = constant(12582912.0)
    shifted = fused(value, constant(1.44269504088896341), magic)
    whole = builder.fsub(shifted, magic)
    # log 2 in two parts, the first of which is exact when multiplied by a small integer.
    rest = fused(whole, constant(-0.693359375), value)
    rest = fused(whole, constant(2.12194440e-4), rest)
    result = constant(1.9875691500e-4)
    for coefficient in (1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1):
        result = fused(result, rest, constant(coefficient))
    result = fused(result, builder.fmul(rest, rest), builder.fadd(rest, constant(1.0)))
    exponent = builder.sub(builder.bitcast(shifted, integers), builder.bitcast(magic, integers))
    biased = builder.add(exponent, constant(127, integers))
    return builder.fmul(result, builder.bitcast(builder.shl(biased, constant(23, integers)), kind))
