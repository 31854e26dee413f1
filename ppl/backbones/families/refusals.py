"""Models that cannot be cut into patches, each with its reason and a near one that can."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from ppl.backbones.families.family import Refusal

__all__ = ["always"]


def always(reason: str, instead: str) -> Callable[[nn.Module], Refusal]:
    """A family that is refused whatever its settings."""
    refusal = Refusal(reason, instead)

    def refuse(model: nn.Module) -> Refusal:
        return refusal

    return refuse
