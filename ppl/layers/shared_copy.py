"""Copy modules without their tensors, for trial runs that must leave the model as it is."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any, TypeVar

from torch import Tensor, nn

__all__ = ["shared_copy"]

T = TypeVar("T")


def shared_copy(thing: T, model: nn.Module, device: str | None = None, *, hooks: bool = True) -> T:
    """Copy a module, or an object that holds one, around the same tensors.

    A forward pass of the copy in eval mode changes nothing in the original: attributes and caches are copies.

    Args:
        thing: the module or object.
        model: the module whose tensors are shared and whose copy is put in eval mode.
        device: give the copy tensors of this device ("meta") instead of the shared ones.
        hooks: keep the hooks of the model; hooks from outside the library are shared, not copied.

    Returns:
        The copy.

    Example:
        >>> layer = nn.Linear(2, 2).train()
        >>> twin = shared_copy(layer, layer)
        >>> twin.weight is layer.weight, twin.training, layer.training
        (True, False, True)
    """
    tensors = list(_tensors_of(model))
    memo: dict[int, Any] = {id(each): each if device is None else each.detach().to(device) for each in tensors}
    memo[id(memo)] = tensors  # Ids stay valid as long as the tensors live.
    for table in _hooks_of(model):
        if hooks and table:
            memo |= {id(hook): hook for hook in table.values() if not type(hook).__module__.startswith("ppl.")}
        else:  # Every module has a dozen empty tables, which take `deepcopy` as long as the rest.
            memo[id(table)] = type(table)()
    twin = copy.deepcopy(thing, memo)
    inside = memo[id(model)]
    for part in inside.modules():
        part.training = False
    return twin


def _hooks_of(model: nn.Module) -> Iterator[dict[Any, Any]]:
    """Yield the tables of hooks of a module and its children."""
    for part in model.modules():
        yield from (value for name, value in vars(part).items() if "_hooks" in name and isinstance(value, dict))


def _tensors_of(model: nn.Module) -> Iterator[Tensor]:
    """Yield parameters, buffers and cached tensors, which may belong to a graph that `deepcopy` refuses."""
    for part in model.modules():
        for value in vars(part).values():
            members = value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else ()
            yield from (each for each in (value, *members) if isinstance(each, Tensor))
