"""Rotary positions: every patch is turned by the angles of its own pixels, not by those of an image of its size."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from einops import rearrange, repeat
from torch import Tensor, nn

from ppl.backbones.families.family import Place
from ppl.backbones.families.override import Constant, Overridden
from ppl.backbones.patches import cut_map

__all__ = ["rotary_positions"]


@contextmanager
def rotary_positions(model: nn.Module, tail: Sequence[nn.Module], place: Place) -> Iterator[None]:
    """Give the blocks the whole image's angles, cut as the features are."""
    rope: Any = getattr(model, "rope", None)
    if rope is None:
        yield
        return
    angles = patch_angles(rope.get_embed(shape=list(place.whole)), place, bool(getattr(model, "rope_mixed", False)))
    with Overridden([(rope, "get_embed", Constant(angles))]):
        yield


def patch_angles(angles: Tensor, place: Place, mixed: bool) -> Tensor:
    """Cut angles (H*W,D), or (depth,heads,H*W,D) if mixed, to (patches,1,h*w,D) or (depth,patches,heads,h*w,D)."""
    height, width = place.whole
    lead = angles.shape[:-2]
    maps = angles.reshape(-1, height, width, angles.shape[-1])
    stride = (place.stride, place.stride)
    patches = cut_map(rearrange(maps, "l h w d -> l d h w"), place.grid, stride, place.halo, "zeros")
    tokens = rearrange(patches, "(l n) d h w -> l n (h w) d", n=place.patches)
    tokens = repeat(tokens, "l n t d -> l (b n) t d", b=place.images)
    if mixed:
        return rearrange(tokens, "(k g) n t d -> k n g t d", g=lead[1])
    return rearrange(tokens, "1 n t d -> n 1 t d")
