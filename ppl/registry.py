"""Tables of named parts (CAM methods, refiners, losses, ...) that users extend from their own modules."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TypeVar

from ppl.errors import PPLTypeError, PPLValueError, nearest

__all__ = ["Registry"]

T = TypeVar("T")


class Registry(Mapping[str, T]):
    """A mapping from names to parts of one kind, to which parts are added and from which none is removed.

    Args:
        kind: the kind of the parts in the singular, for messages: "refiner", "CAM method".

    Example:
        >>> colours: Registry[int] = Registry("colour")
        >>> colours.register("red", 0xFF0000)
        >>> colours["red"]
        16711680
        >>> colours.find("rde")
        Traceback (most recent call last):
        ppl.errors.PPLValueError: no colour named 'rde'; did you mean 'red'?
        >>> colours.register("red", 0)
        Traceback (most recent call last):
        ppl.errors.PPLValueError: a colour named 'red' exists already: choose another name
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._parts: dict[str, T] = {}

    def register(self, name: str, part: T) -> None:
        """Add a part. Registering the same object twice under one name has no effect.

        Args:
            name: the name by which recipes and functions ask for the part.
            part: the part.

        Raises:
            PPLTypeError: if the name is no string.
            PPLValueError: if the name is empty, or is the name of another part.
        """
        if not isinstance(name, str):
            raise PPLTypeError(f"the name of a {self.kind} must be a string, got {name!r}")
        if not name:
            raise PPLValueError(f"the name of a {self.kind} must not be empty")
        if name in self._parts and not _same(self._parts[name], part):
            raise PPLValueError(f"a {self.kind} named {name!r} exists already: choose another name")
        self._parts[name] = part

    def find(self, name: str) -> T:
        """Return the part of that name.

        Raises:
            PPLValueError: if there is none; the message offers the nearest names, or asks for the plugin.
        """
        if name not in self._parts:
            hint = nearest(str(name), self._parts)
            if "did you mean" not in hint:
                hint += f"; a {self.kind} of your own needs its module: import the module, or name it in `plugins`"
            raise PPLValueError(f"no {self.kind} named {name!r}{hint}")
        return self._parts[name]

    def __getitem__(self, name: str) -> T:
        return self._parts[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._parts)

    def __len__(self) -> int:
        return len(self._parts)


def _same(known: object, new: object) -> bool:
    """Tell whether two parts are one, or one and the same definition of a module that was imported anew."""
    if known is new:
        return True
    names = [(getattr(part, "__module__", None), getattr(part, "__qualname__", None)) for part in (known, new)]
    return names[0] == names[1] and None not in names[0]
