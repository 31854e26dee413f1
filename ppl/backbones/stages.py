"""The stages of a backbone and the cuts after them."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from ppl.backbones.errors import UnsupportedBackboneError
from ppl.errors import PPLTypeError, PPLValueError

__all__ = ["Layout", "Stage", "default_cuts", "find_stage"]

Layout: TypeAlias = Literal["NCHW", "NHWC", "NLC", "list"]


@dataclass(frozen=True)
class Stage:
    """One stage of a backbone, found by a dry run.

    Attributes:
        name: name of the stage in the backbone ("layer2").
        module: dotted name of the stage's last block, whose output is the stage's output; gradient checkpointing
            bypasses the stage's container but not the block.
        layout: layout of the output: maps "NCHW" or "NHWC", tokens "NLC", or a "list" of maps of several resolutions.
        channels: channels of the output.
        reduction: input pixels per cell of the output, along one axis.
        prefix_tokens: class, distillation and register tokens before the cells ("NLC" only).
        refusal: the reason why the backbone cannot be cut after this stage; empty if it can.
    """

    name: str
    module: str
    layout: Layout
    channels: int
    reduction: int
    prefix_tokens: int = 0
    refusal: str = ""


def find_stage(stages: Sequence[Stage], cut: str | int) -> int:
    """Return the index of the stage after which a cut stands; the last stage is refused.

    Returns:
        The index, in `0..len(stages)-2`.

    Raises:
        PPLValueError: if there is no such stage, or it is the last; the message lists the valid cuts.
        UnsupportedBackboneError: if the backbone cannot be cut after that stage.
        PPLTypeError: if `cut` is neither a string nor an integer.

    Example:
        >>> stages = [Stage(f"layer{i}", f"layer{i}", "NCHW", 64, 4) for i in (1, 2, 3)]
        >>> find_stage(stages, "layer2")
        1
    """
    names = [stage.name for stage in stages]
    usable = {stage.name: index for index, stage in enumerate(stages[:-1]) if not stage.refusal}
    valid = ", ".join(f"{name!r} ({index})" for name, index in usable.items()) or "none"
    if isinstance(cut, bool) or not isinstance(cut, (str, int)):
        raise PPLTypeError(f"a cut is a stage's name or index, got {cut!r}: valid cuts are {valid}")
    index: Any = cut
    if isinstance(cut, str):
        if cut not in names:
            near = difflib.get_close_matches(cut, usable, n=1, cutoff=0.0)
            hint = f"; the nearest is {near[0]!r}" if near else ""
            raise PPLValueError(f"there is no stage {cut!r} to cut after: valid cuts are {valid}{hint}")
        index = names.index(cut)
    if index == len(names) - 1:
        raise PPLValueError(
            f"cut {cut!r} is the last stage, after which nothing is left to run: valid cuts are {valid}"
        )
    if not 0 <= index < len(names):
        raise PPLValueError(f"there is no stage of index {cut}: valid cuts are {valid}")
    if stages[index].refusal:
        raise UnsupportedBackboneError(f"cannot cut after {cut!r}: {stages[index].refusal}; valid cuts are {valid}")
    return int(index)


def default_cuts(stages: Sequence[Stage]) -> tuple[str, ...]:
    """Return the default cuts: after the last three stages before the final one, or fewer if there are fewer.

    The paper names no stages; this default is ours. Stages of equal reduction, such as the blocks of a ViT, are cut at
    a quarter, half and three quarters of the depth.

    Args:
        stages: all stages of the backbone, in order.

    Returns:
        Names of stages, shallow to deep.

    Example:
        >>> stages = [Stage(f"layer{i}", f"layer{i}", "NCHW", 64, 2 ** (i + 1)) for i in (1, 2, 3, 4)]
        >>> default_cuts(stages)
        ('layer1', 'layer2', 'layer3')
    """
    candidates = [stage for stage in stages[:-1] if not stage.refusal]
    if len(candidates) > 3 and len({stage.reduction for stage in stages}) == 1:
        candidates = [stages[len(stages) * quarter // 4 - 1] for quarter in (1, 2, 3)]
    return tuple(stage.name for stage in candidates[-3:])
