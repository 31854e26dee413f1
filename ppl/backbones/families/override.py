"""Put something else in an object's place for the time of one pass."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

__all__ = ["Constant", "overridden", "passing_through"]


@contextmanager
def overridden(changes: Iterable[tuple[object, str, Any]]) -> Iterator[None]:
    """Shadow attributes of objects, and uncover what was there afterwards, even after an exception.

    The instance's own dictionary is written, which comes before parameters, buffers and the methods of the class.

    Example:
        >>> layer = nn.Linear(2, 2)
        >>> with overridden([(layer, "bias", None)]):
        ...     layer.bias is None
        True
        >>> layer.bias is None
        False
    """
    missing = object()
    done: list[tuple[dict[str, Any], str, Any]] = []
    try:
        for target, name, value in changes:
            store = target.__dict__
            done.append((store, name, store.get(name, missing)))
            store[name] = value
        yield
    finally:
        for store, name, before in reversed(done):
            if before is missing:
                del store[name]
            else:
                store[name] = before


class Constant:
    """A function of anything that returns one value."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Return the value."""
        return self.value


def _first(x: Any, *args: Any, **kwargs: Any) -> Any:
    return x


def passing_through(blocks: Iterable[nn.Module]) -> list[tuple[object, str, Any]]:
    """Changes that make blocks hand on their first argument; their hooks are still called."""
    return [(block, "forward", _first) for block in blocks]
