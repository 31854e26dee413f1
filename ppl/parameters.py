"""One check of parameters for callers and recipes: the type hints of a function, with their ranges, are the rule."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, get_type_hints

from pydantic import TypeAdapter, ValidationError

from ppl.errors import PPLTypeError, PPLValueError, nearest

__all__ = ["check_parameters", "known_parameters"]


@lru_cache(maxsize=64)
def _adapters(function: Callable[..., Any]) -> dict[str, TypeAdapter[Any]]:
    try:
        hints = get_type_hints(function, include_extras=True)
    except (NameError, TypeError):  # hints for a type checker alone, or an object that can be called and has none
        hints = {}
    keywords = [
        name for name, p in inspect.signature(function).parameters.items() if p.kind is inspect.Parameter.KEYWORD_ONLY
    ]
    return {name: TypeAdapter(hints.get(name, Any), config={"arbitrary_types_allowed": True}) for name in keywords}


def known_parameters(function: Callable[..., Any]) -> Mapping[str, Any]:
    """The keyword-only parameters of a function and their defaults.

    Args:
        function: the function.

    Returns:
        Name to default, in the order of the signature.

    Example:
        >>> def blur(image, maps, *, radius: int = 3): ...
        >>> dict(known_parameters(blur))
        {'radius': 3}
    """
    return {
        name: p.default
        for name, p in inspect.signature(function).parameters.items()
        if p.kind is inspect.Parameter.KEYWORD_ONLY
    }


def check_parameters(function: Callable[..., Any], **given: Any) -> dict[str, Any]:
    """Check values against the type hints of a function's keyword-only parameters.

    Args:
        function: the function; what it gives no hint for may be anything.
        **given: values by parameter name.

    Returns:
        The values, converted where that loses nothing (a list to a tuple, 3 to 3.0).

    Raises:
        PPLTypeError: if the function has no such parameter; names the nearest one.
        PPLValueError: if a value is of the wrong type or out of range.

    Example:
        >>> def blur(image, maps, *, radius: int = 3): ...
        >>> check_parameters(blur, radius=5)
        {'radius': 5}
        >>> check_parameters(blur, radios=5)
        Traceback (most recent call last):
        ppl.errors.PPLTypeError: blur has no parameter 'radios'; did you mean 'radius'?
    """
    adapters = _adapters(function)
    checked = {}
    for name, value in given.items():
        if name not in adapters:
            raise PPLTypeError(f"{_name(function)} has no parameter {name!r}{nearest(name, adapters)}")
        try:
            checked[name] = adapters[name].validate_python(value)
        except ValidationError as error:
            problem = error.errors()[0]["msg"]
            raise PPLValueError(f"{_name(function)}: {name}={value!r} does not work: {problem}") from None
    return checked


def _name(function: Callable[..., Any]) -> str:
    """As a recipe calls it: functions of a registry may be private, and a partial has no name."""
    return str(getattr(function, "__name__", type(function).__name__)).lstrip("_")
