"""Views of a model for a single call: the same tensors, other attributes of some modules, the model unchanged."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MethodType
from typing import Any, TypeAlias

from torch import nn

__all__ = ["Changes", "modules_outside", "view_of", "with_ancestors"]

Changes: TypeAlias = Mapping[str, Mapping[str, Any]]
"""Dotted name of a module, then name and value of each changed attribute."""


def view_of(
    model: nn.Module,
    changes: Changes,
    in_eval: frozenset[str] = frozenset(),
    outside: Mapping[str, Iterable[str]] | None = None,
    paths: frozenset[str] = frozenset(),
) -> nn.Module:
    """Return a view of a model in which attributes of some modules are changed.

    Changed modules and their ancestors are shallow copies, all others are the model's own. Copies share parameters,
    buffers and hooks with their originals. Other threads, and hooks of the caller, see an unchanged model.

    Args:
        model: the model.
        changes: the changed attributes; a module with no changed attribute is copied too.
        in_eval: names of modules that are in eval mode in the view.
        outside: the result of :func:`modules_outside`.
        paths: the result of :func:`with_ancestors` for all or some of these names, to save time.

    Returns:
        The view, or the model itself if nothing changes.

    Example:
        >>> model = nn.Sequential(nn.Dropout(0.5), nn.ReLU())
        >>> view = view_of(model, {}, in_eval=frozenset(["0"]))
        >>> view[0].training, model[0].training, view[1] is model[1]
        (False, True, True)
    """
    outside = outside or {}
    changes = {**{name: {} for name in outside}, **changes}
    twins: dict[nn.Module, nn.Module] = {}
    paths = paths | with_ancestors(name for name in (*changes, *in_eval) if name not in paths)
    view = _view(model, "", changes, in_eval, paths, twins)
    for name, attributes in outside.items():
        twin = vars(twins[model.get_submodule(name)])
        for attribute in attributes:
            twin[attribute] = _rebound(twin[attribute], twins)
    return view


def with_ancestors(names: Iterable[str]) -> frozenset[str]:
    """Return the names and the names of all their ancestors, the model's own empty name included.

    Example:
        >>> sorted(with_ancestors(["layer1.0.conv1"]))
        ['', 'layer1', 'layer1.0', 'layer1.0.conv1']
    """
    found = {""}
    for name in names:
        parts = name.split(".")
        found.update(".".join(parts[:count]) for count in range(1, len(parts) + 1))
    return frozenset(found)


def _view(
    module: nn.Module,
    name: str,
    changes: Changes,
    in_eval: frozenset[str],
    paths: frozenset[str],
    twins: dict[nn.Module, nn.Module],
) -> nn.Module:
    if module in twins:
        return twins[module]
    twins[module] = module
    if name not in paths:
        return module
    children = {}
    for key, child in module._modules.items():
        if child is not None:
            twin = _view(child, f"{name}.{key}" if name else key, changes, in_eval, paths, twins)
            if twin is not child:
                children[key] = twin
    stop_training = module.training and name in in_eval
    if children or stop_training or name in changes:
        twin = object.__new__(type(module))
        attributes = vars(twin)
        attributes.update(vars(module))
        if children:
            attributes["_modules"] = {**module._modules, **children}
        if stop_training:
            attributes["training"] = False
            if "attention_bias_cache" in attributes:  # LeViT and TinyViT keep biases of their weights in eval mode.
                attributes["attention_bias_cache"] = {}
        attributes.update(changes.get(name, {}))
        twins[module] = twin
    return twins[module]


def modules_outside(model: nn.Module) -> dict[str, tuple[str, ...]]:
    """Return the attributes that hold modules beside torch's own registry: lists of modules, and bound methods.

    Returns:
        Names of attributes by dotted name of the module.
    """
    found = {}
    for name, module in model.named_modules():
        attributes = [key for key, value in vars(module).items() if key != "_modules" and _holds_module(value)]
        if attributes:
            found[name] = tuple(attributes)
    return found


def _holds_module(value: Any) -> bool:
    if isinstance(value, MethodType):
        value = value.__self__
    members = value.values() if type(value) is dict else value if type(value) in (list, tuple) else (value,)
    return any(isinstance(member, nn.Module) for member in members)


def _rebound(value: Any, twins: Mapping[nn.Module, nn.Module]) -> Any:
    """Replace modules within an attribute's value by their twins."""
    if isinstance(value, nn.Module):
        return twins.get(value, value)
    if isinstance(value, MethodType) and isinstance(value.__self__, nn.Module):
        return MethodType(value.__func__, twins.get(value.__self__, value.__self__))
    if type(value) is dict:
        return {key: _rebound(member, twins) for key, member in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_rebound(member, twins) for member in value)
    return value
