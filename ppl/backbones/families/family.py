"""The description of a family of backbones that is not an ordinary chain of stages."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from torch import Tensor, nn

from ppl.backbones.view import Changes

__all__ = ["Cut", "Family", "Refusal", "Tiling"]


@dataclass(frozen=True)
class Tiling:
    """How the patches of one pass lie over the map; whole maps are one patch per image.

    Attributes:
        images: images in the batch; there are `images * grid[0] * grid[1]` patches.
        grid: rows and columns of patches.
        cells: (h,w) of a patch at the cut, halo included.
        halo: cells of context on every side of a patch.
        whole: (H,W) of the un-patched map at the cut.
        reduction: input pixels per cell at the cut.
        stride: stride of the layers after the cut.
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
    """The reason why a model cannot be cut, and the name of a model that can."""

    reason: str
    instead: str


Cut: TypeAlias = Callable[..., tuple[Any, tuple[int, int]]]
Positions: TypeAlias = Callable[[nn.Module, Mapping[str, nn.Module], Tiling], Changes]


@dataclass(frozen=True)
class Family:
    """The differences between the models of one family and an ordinary chain of stages.

    Attributes:
        prepare: set switches of a model, in place, so that it takes maps of any size; results at its own size stay.
        repair: correct the names that the model's `feature_info` gives to its stages.
        positions: return the changes of a view (see `view_of`) in which the modules after the cut give every patch the
            positions of its own pixels; takes the model, the modules after the cut by name, and the tiling.
        sized_dummy: the model passes the size of its maps along, so the dummy image needs the patches' size.
        batched_dummy: the model passes the batch size along, so there are as many dummy images as patches.
        final: take the final map out of the result of `forward_features`.
        from_last_stage: the final map is the last stage's output, as `forward_features` returns no map.
        order: return the index (H*W,) that sorts tokens row by row, from `(model, stage, (H,W), device)`.
        cut: cut the features of a stage without an ordinary layout; takes the model and the arguments of
            `cut_features`.
        window: return the cells of the attention windows; patches are multiples of them.
        refuse: return the reason why this very model cannot be cut, or None.
        only: return the names of the stages that can be cut, and why the others cannot.
        relies_on: attributes of timm's modules without which cutting would be wrong without an error; each must exist
            on a module of the model.
    """

    prepare: Callable[[nn.Module], None] | None = None
    repair: Callable[[nn.Module, list[str]], list[str]] | None = None
    positions: Positions | None = None
    sized_dummy: bool = False
    batched_dummy: bool = False
    final: Callable[[Any], Tensor] | None = None
    from_last_stage: bool = False
    order: Callable[..., Tensor] | None = None
    cut: Cut | None = None
    window: Callable[[nn.Module], int] | None = None
    refuse: Callable[[nn.Module], Refusal | None] | None = None
    only: Callable[[nn.Module, list[str]], tuple[list[str], str]] | None = None
    relies_on: tuple[str, ...] = ()
