"""Rotary positions: every patch is rotated by the angles of its own pixels, not by those of a small image."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from einops import rearrange, repeat
from torch import Tensor, nn

from ppl.backbones.families.family import Tiling
from ppl.backbones.timm_support import require
from ppl.backbones.view import Changes
from ppl.layers.tiling import cut_patches

__all__ = ["rotary_positions"]


def rotary_positions(model: nn.Module, tail: Mapping[str, nn.Module], tiling: Tiling) -> Changes:
    """Give the blocks the whole image's angles, cut like the features."""
    rope: Any = getattr(model, "rope", None)
    if rope is None:
        return {}
    angles = require(rope, "get_embed", model)(shape=list(tiling.whole))
    angles = patch_angles(angles, tiling, bool(require(model, "rope_mixed", model)))
    return {"rope": {"get_embed": _Constant(angles)}}


class _Constant:
    """A function of any arguments that returns one value."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.value


def patch_angles(angles: Tensor, tiling: Tiling, mixed: bool) -> Tensor:
    """Cut angles (H*W,D), or (depth,heads,H*W,D) if mixed, to (patches,1,h*w,D) or (depth,patches,heads,h*w,D)."""
    height, width = tiling.whole
    heads = angles.shape[1] if mixed else 1
    maps = angles.reshape(-1, height, width, angles.shape[-1])
    stride, halo = (tiling.stride, tiling.stride), (tiling.halo, tiling.halo)
    patches = cut_patches(rearrange(maps, "l h w d -> l d h w"), tiling.grid, stride, halo)
    tokens = rearrange(patches, "(l n) d h w -> l n (h w) d", n=tiling.patches)
    tokens = repeat(tokens, "l n t d -> l (b n) t d", b=tiling.images)
    if mixed:
        return rearrange(tokens, "(k g) n t d -> k n g t d", g=heads)
    return rearrange(tokens, "1 n t d -> n 1 t d")
