"""The stages of a backbone: where it can be cut, and what comes out there."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from torch import nn

from ppl.errors import PPLTypeError, PPLValueError

__all__ = ["Layout", "Stage", "default_cuts", "find_stage", "last_leaf", "stage_names"]

Layout: TypeAlias = Literal["NCHW", "NHWC", "NLC", "list"]


@dataclass(frozen=True)
class Stage:
    """One stage of a backbone, as a dry run found it.

    Attributes:
        name: what the backbone calls it ("layer2").
        module: dotted path of the module whose output is the stage's: the stage's last block, which is called even
            where gradient checkpointing bypasses the container.
        layout: how its output lies: maps "NCHW" or "NHWC", tokens "NLC", or a "list" of maps at several resolutions.
        channels: channels of the output.
        reduction: input pixels per cell of the output, along one axis.
        prefix_tokens: class, distillation and register tokens ahead of the cells ("NLC" alone).
    """

    name: str
    module: str
    layout: Layout
    channels: int
    reduction: int
    prefix_tokens: int = 0


def stage_names(model: nn.Module, stages: Sequence[str] | None) -> list[str]:
    """Names of the modules that end the stages: those given, or those of the model's own `feature_info`.

    Args:
        model: the backbone.
        stages: dotted module names, or None.

    Returns:
        Dotted names, each of which is a module of the model.

    Raises:
        PPLValueError: if a given name is no module of the model, or none is given and the model names none itself.
        PPLTypeError: if `stages` is a single string.
    """
    if isinstance(stages, str):
        raise PPLTypeError(f"stages must be a list of module names, got the string {stages!r}: write [{stages!r}]")
    modules = dict(model.named_modules())
    if stages is not None:
        for name in stages:
            if name not in modules or not name:
                near = difflib.get_close_matches(name, modules, n=3, cutoff=0.3)
                raise PPLValueError(
                    f"stage {name!r} is no module of {type(model).__name__}: near names are {', '.join(near) or 'none'}"
                )
        return list(stages)
    info = getattr(model, "feature_info", None)
    if not info:
        children = ", ".join(name for name, _ in model.named_children())
        raise PPLValueError(
            f"{type(model).__name__} does not say what its stages are (it has no feature_info): "
            f"name them with stages=[...]; its modules are {children}"
        )
    names = [entry["module"] for entry in info]
    return [name for name in names if name and name in modules]


def last_leaf(model: nn.Module, name: str) -> str:
    """Follow a stage's plain `Sequential`s down to the last block: gradient checkpointing calls around containers."""
    module = model.get_submodule(name)
    while isinstance(module, nn.Sequential) and type(module).forward is nn.Sequential.forward and len(module):
        last = list(module._modules)[-1]
        name = f"{name}.{last}"
        module = module[-1]
    return name


def find_stage(stages: Sequence[Stage], cut: str | int) -> int:
    """Index of the stage that a cut names; the cut stands after that stage, so it cannot be the last.

    Args:
        stages: all stages of the backbone, in order.
        cut: a stage's name or its index.

    Returns:
        The index, in `0..len(stages)-2`.

    Raises:
        PPLValueError: if there is no such stage or it is the last; the message lists the valid ones.
        PPLTypeError: if `cut` is neither a string nor an integer.

    Example:
        >>> stages = [Stage(f"layer{i}", f"layer{i}", "NCHW", 64, 4) for i in (1, 2, 3)]
        >>> find_stage(stages, "layer2")
        1
    """
    names = [stage.name for stage in stages]
    valid = ", ".join(f"{name!r} ({index})" for index, name in enumerate(names[:-1])) or "none"
    if isinstance(cut, bool) or not isinstance(cut, (str, int)):
        raise PPLTypeError(f"a cut is a stage's name or index, got {cut!r}: valid cuts are {valid}")
    index: Any = cut
    if isinstance(cut, str):
        if cut not in names:
            near = difflib.get_close_matches(cut, names[:-1], n=1, cutoff=0.0)
            hint = f"; the nearest is {near[0]!r}" if near else ""
            raise PPLValueError(f"there is no stage {cut!r} to cut after: valid cuts are {valid}{hint}")
        index = names.index(cut)
    if index == len(names) - 1:
        raise PPLValueError(
            f"cut {cut!r} is the last stage, after which nothing is left to run: valid cuts are {valid}"
        )
    if not 0 <= index < len(names):
        raise PPLValueError(f"there is no stage of index {cut}: valid cuts are {valid}")
    return int(index)


def default_cuts(stages: Sequence[Stage]) -> tuple[str, ...]:
    """Where to cut if nobody says: after the last three stages that are not the last, or fewer where there are fewer.

    The paper names no stages; this default is ours. Of several stages of equal reduction (the blocks of a ViT, say)
    a quarter, half and three quarters of the depth are taken.

    Args:
        stages: all stages of the backbone, in order.

    Returns:
        Names, shallow to deep.

    Example:
        >>> stages = [Stage(f"layer{i}", f"layer{i}", "NCHW", 64, 2 ** (i + 1)) for i in (1, 2, 3, 4)]
        >>> default_cuts(stages)
        ('layer1', 'layer2', 'layer3')
    """
    candidates = list(stages[:-1])
    if len(candidates) > 3 and len({stage.reduction for stage in stages}) == 1:
        candidates = [stages[len(stages) * quarter // 4 - 1] for quarter in (1, 2, 3)]
    return tuple(stage.name for stage in candidates[-3:])
