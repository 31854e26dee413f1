"""Names of functions in records of finished work."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

from ppl.errors import PPLValueError

__all__ = ["recorded_name"]


def recorded_name(what: str, function: Callable[..., Any]) -> str:
    """Return the name of a function for a record: the same in every run, and different for different functions.

    Args:
        what: the option that the function is given for, for errors.
        function: a function of a module, or an object whose repr describes it completely, such as a frozen dataclass.

    Returns:
        `module.function`, or the repr.

    Raises:
        PPLValueError: for a lambda, a function inside another function, a method, a partial, or an object whose repr is
            its address. A resumed run could not tell whether the function is the same.

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
            f"{what} is {kind}, which has no lasting name for the record of finished work: give a function of a module,"
            " or a callable dataclass"
        )
    return name
