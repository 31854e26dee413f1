"""Names of callables in records: whoever reads one must be able to tell whether it is the same callable."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

from ppl.errors import PPLValueError

__all__ = ["recorded_name"]


def recorded_name(what: str, function: Callable[..., Any]) -> str:
    """The name under which a record keeps a callable: the same in every run, and of this one alone.

    Args:
        what: what the caller calls it.
        function: a function of a module, or an object whose repr says all, such as a frozen dataclass.

    Returns:
        `module.function`, or the repr.

    Raises:
        PPLValueError: for a lambda, a function inside another one, a method, a partial, or an object whose repr is its
            address: a stopped run could go on with another one and would not know.

    Example:
        >>> recorded_name("background", recorded_name)
        'ppl.refine.names.recorded_name'
    """
    if inspect.isfunction(function):
        name = f"{function.__module__}.{function.__qualname__}"
        kind = "a lambda" if "<lambda>" in name else "a function inside another one"
        nameless = "<" in name
    else:
        name, kind = repr(function), f"a {type(function).__name__}"
        nameless = inspect.ismethod(function) or isinstance(function, partial) or " at 0x" in name
    if nameless:
        raise PPLValueError(
            f"{what} is {kind}, of which no record can be kept: give a function of a module, or a dataclass that can"
            " be called"
        )
    return name
