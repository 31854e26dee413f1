"""What is particular about a family of backbones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, TypeAlias

from torch import Tensor, nn

__all__ = ["Cut", "Family", "Place", "Refusal"]


@dataclass(frozen=True)
class Place:
    """Where the patches of one pass lie; a pass of whole maps is one patch per image.

    Attributes:
        images: images in the batch; there are `images * grid[0] * grid[1]` patches.
        grid: rows and columns of patches.
        cells: (h,w) of a patch at the cut, halo included.
        halo: cells of context on every side of it.
        whole: (H,W) of the un-patched map at the cut.
        reduction: input pixels per cell at the cut.
        stride: the stride left after the cut.
    """

    images: int
    grid: tuple[int, int]
    cells: tuple[int, int]
    halo: int
    whole: tuple[int, int]
    reduction: int
    stride: int

    @property
    def patches(self) -> int:
        """Patches per image."""
        return self.grid[0] * self.grid[1]


@dataclass(frozen=True)
class Refusal:
    """Why a model cannot be cut, and what to take instead."""

    reason: str
    instead: str


Cut: TypeAlias = Callable[..., tuple[Any, tuple[int, int]]]


@dataclass(frozen=True)
class Family:
    """How the models of one family differ from an ordinary chain of stages.

    Attributes:
        prepare: sets switches of a model, in place, so that it takes maps of any size; results at its own size stay.
        repair: corrects the names that the model's `feature_info` gives to its stages.
        positions: for the time of a patched pass, lets the modules after the cut give every patch the positions of its
            own pixels.
        replays: whether `positions` survives gradient checkpointing, which runs blocks again after the pass.
        sized_dummy: the sizes of maps are handed on beside them, so the dummy image has the patches' size.
        batched_dummy: so is the batch, so there are as many dummies as patches.
        final: takes the final map out of what `forward_features` returns.
        from_last_stage: the final map is the last stage's, as `forward_features` returns none.
        order: the index (H*W,) that puts tokens in an order of their own row by row, from `(model, stage, (H,W),
            device)`.
        cut: cuts the features of a stage that has no ordinary layout; the model, then the arguments of `cut_features`.
        window: cells of a map that attention windows must divide, at every stage; patches are that large or more.
        refuse: says why this very model cannot be cut.
        only: names of the stages after which alone it can be cut, and why.
    """

    prepare: Callable[[nn.Module], None] | None = None
    repair: Callable[[nn.Module, list[str]], list[str]] | None = None
    positions: Callable[[nn.Module, Sequence[nn.Module], Place], AbstractContextManager[None]] | None = None
    replays: bool = True
    sized_dummy: bool = False
    batched_dummy: bool = False
    final: Callable[[Any], Tensor] | None = None
    from_last_stage: bool = False
    order: Callable[..., Tensor] | None = None
    cut: Cut | None = None
    window: Callable[[nn.Module], int] | None = None
    refuse: Callable[[nn.Module], Refusal | None] | None = None
    only: Callable[[nn.Module, list[str]], tuple[list[str], str]] | None = None
