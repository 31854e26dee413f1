"""Put something else in an object's place for the time of one pass."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import nn

__all__ = ["Constant", "Overridden", "passing_through"]

_MISSING = object()


class Overridden:
    """Shadow attributes of objects, and uncover what was there afterwards, even after an exception.

    The instance's own dictionary is written, which comes before parameters, buffers and the methods of the class. A
    class, since `torch.compile` follows `contextlib`'s generators in its newest versions alone.

    Args:
        changes: objects, names of their attributes, and what stands in their place.

    Example:
        >>> layer = nn.Linear(2, 2)
        >>> with Overridden([(layer, "bias", None)]):
        ...     layer.bias is None
        True
        >>> layer.bias is None
        False
    """

    def __init__(self, changes: Iterable[tuple[object, str, Any]]) -> None:
        self.changes = list(changes)
        self.before: list[tuple[dict[str, Any], str, Any]] = []

    def __enter__(self) -> None:
        """Put the changes in place."""
        for target, name, value in self.changes:
            store = target.__dict__
            self.before.append((store, name, store.get(name, _MISSING)))
            store[name] = value

    def __exit__(self, *error: object) -> None:
        """Take them back in reverse."""
        for store, name, before in reversed(self.before):
            if before is _MISSING:
                del store[name]
            else:
                store[name] = before
        self.before.clear()


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
