"""Check parameters against the type hints of a function, for Python callers and for recipes alike."""

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
    except (NameError, TypeError):  # hints that only a type checker can resolve, or a callable object without hints
        hints = {}
    keywords = [
        name for name, p in inspect.signature(function).parameters.items() if p.kind is inspect.Parameter.KEYWORD_ONLY
    ]
    return {name: TypeAdapter(hints.get(name, Any), config={"arbitrary_types_allowed": True}) for name in keywords}


def known_parameters(function: Callable[..., Any]) -> Mapping[str, Any]:
    """Return the keyword-only parameters of a function and their defaults.

    Args:
        function: any function.

    Returns:
        Default by name, in the order of the signature.

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
        function: any function; a parameter without a hint takes every value.
        **given: values by parameter name.

    Returns:
        The values, converted where the conversion is lossless (a list to a tuple, 3 to 3.0).

    Raises:
        PPLTypeError: if the function has no such parameter; the message names the nearest one.
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
    """Return the name as recipes write it: registered functions may be private, and partials have no name."""
    return str(getattr(function, "__name__", type(function).__name__)).lstrip("_")
