"""Versions of timm on which cutting is tested, and access to timm's private attributes."""

from __future__ import annotations

import re
from typing import Any

from torch import nn

from ppl.backbones.errors import UnsupportedBackboneError

__all__ = ["NEWEST_TIMM", "OLDEST_TIMM", "is_tested", "require", "timm_module"]

OLDEST_TIMM, NEWEST_TIMM = "1.0.23", "1.0.31"
"""The range of versions that the tests ran on; `setup.cfg` names the same."""


def timm_module(model: nn.Module) -> str:
    """Return the file of timm that defines a model or its base class ("resnet"); empty for other models.

    Example:
        >>> import timm
        >>> timm_module(timm.create_model("test_resnet"))
        'resnet'
    """
    for kind in type(model).__mro__:
        package, _, module = kind.__module__.rpartition(".")
        if package == "timm.models":
            return module
    return ""


def is_tested(model: nn.Module) -> bool:
    """Tell whether the identities of cutting were tested for this class: timm's own, in a version up to the newest."""
    import timm

    return type(model).__module__.startswith("timm.models.") and _numbers(timm.__version__) <= _numbers(NEWEST_TIMM)


def _numbers(version: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", version)[:3]]


def require(owner: object, attribute: str, model: nn.Module) -> Any:
    """Return an attribute of timm that cutting relies on.

    Args:
        owner: the object that has the attribute.
        attribute: its name.
        model: the model, for the message.

    Raises:
        UnsupportedBackboneError: if this version of timm has no such attribute.
    """
    import timm

    try:
        return getattr(owner, attribute)
    except AttributeError:
        raise UnsupportedBackboneError(
            f"{type(model).__name__} (timm family {timm_module(model)!r}) cannot be cut with timm {timm.__version__}: "
            f"{type(owner).__name__} has no attribute {attribute!r}; use timm {OLDEST_TIMM} to {NEWEST_TIMM}"
        ) from None
