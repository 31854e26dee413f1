"""Kernels written in a small part of Python, translated to LLVM.

Numba would take such kernels as well, but loading it takes longer than an inference, and compiling seven times as long.
The part of Python is the one that inner loops need: `for` over `range` with a positive step, `while`, `if`, `break`,
`continue`, assignments, arithmetic and comparisons, and calls of other kernels and of *operations*. It differs from
Python where C does:

- Arrays are flat and contiguous and have no length; an array plus an integer is the array from there on. No index is
  checked, and none is negative.
- Whole numbers have 64 bits (32 where all that take part were made by `i32`), and `//` and `%` round towards zero.
- Reals have 32 bits.
- A variable keeps the type of its first value.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable, Mapping
from typing import Any

from llvmlite import ir

__all__ = ["BOOL", "F32", "I32", "I64", "U8", "Kernel", "Operation", "as_type", "kernel", "operation"]

BOOL, U8, I32, I64, F32 = ir.IntType(1), ir.IntType(8), ir.IntType(32), ir.IntType(64), ir.FloatType()
_ELEMENTS = {"u8": U8, "i32": I32, "i64": I64, "f32": F32}


class Operation:
    """What a call in a kernel stands for, if not another kernel: `emit(builder, *values)` returns the value."""

    def __init__(self, emit: Callable[..., Any]) -> None:
        self.emit = emit
        self.__doc__ = emit.__doc__


def operation(emit: Callable[..., Any]) -> Any:
    """Make a function that builds instructions callable from kernels."""
    return Operation(emit)


class Kernel:
    """A function for `translate`.

    Attributes:
        name: its name.
        parameters: name -> LLVM type; None for constants, each value of which gives code of its own.
        returns: the LLVM type of what it returns.
        inlined: whether it is copied into its callers.
        scope: the globals that it sees.
    """

    def __init__(self, function: Callable[..., Any], arrays: Mapping[str, str], others: Mapping[str, Any]) -> None:
        self.name = function.__name__
        self.__doc__ = function.__doc__
        self.function = function
        kinds: dict[str, Any] = {
            name: _ELEMENTS[kind].as_pointer() for kind, names in arrays.items() for name in names.split()
        }
        kinds |= dict.fromkeys(others["reals"].split(), F32) | dict.fromkeys(others["constants"].split())
        names = function.__code__.co_varnames[: function.__code__.co_argcount]
        self.parameters = {name: kinds.pop(name, I64) for name in names}
        if kinds:
            raise TypeError(f"{self.name} has no parameter named {', '.join(kinds)}")
        self.returns = {"nothing": ir.VoidType(), "i64": I64, "f32": F32}[others["returns"]]
        self.inlined = others["inlined"]
        self.scope = function.__globals__

    def body(self) -> list[ast.stmt]:
        """Its statements."""
        definition = ast.parse(textwrap.dedent(inspect.getsource(self.function))).body[0]
        assert isinstance(definition, ast.FunctionDef)
        return definition.body


def kernel(
    *, u8: str = "", i32: str = "", i64: str = "", f32: str = "", reals: str = "", constants: str = "",
    returns: str = "nothing", inlined: bool = False,
) -> Callable[[Callable[..., Any]], Any]:  # fmt: skip
    """Declare a kernel; parameters that are not named are whole numbers.

    Args:
        u8: names of the parameters that are arrays of bytes.
        i32: arrays of int32.
        i64: arrays of int64.
        f32: arrays of float32.
        reals: single float32 numbers.
        constants: numbers that are known when it is compiled.
        returns: "nothing", "i64" or "f32".
        inlined: whether it is copied into its callers.
    """
    arrays = {"u8": u8, "i32": i32, "i64": i64, "f32": f32}
    others = {"reals": reals, "constants": constants, "returns": returns, "inlined": inlined}
    return lambda function: Kernel(function, arrays, others)


def as_type(builder: Any, value: Any, kind: Any) -> Any:
    """A number as a value of a type: constants take any, integers are cut or extended."""
    if isinstance(value, int | float):
        return ir.Constant(kind, float(value) if kind == F32 else int(value))
    if value.type == kind:
        return value
    if isinstance(value.type, ir.IntType) and isinstance(kind, ir.IntType):
        if kind.width < value.type.width:
            return builder.trunc(value, kind)
        return builder.zext(value, kind) if value.type == BOOL else builder.sext(value, kind)
    raise TypeError(f"no {kind} can be made of {value.type} without a cast")
