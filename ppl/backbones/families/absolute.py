"""Position embeddings that are added after the cut: every patch gets the part that its cells cover."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from einops import rearrange
from torch import Tensor, nn

from ppl.backbones.families.family import Place
from ppl.backbones.families.override import Overridden
from ppl.backbones.padding import replicate
from ppl.backbones.patches import cut_map

__all__ = ["added_grids", "fourier_grids", "patch_part"]


def patch_part(grid: Tensor, place: Place, factor: int) -> Tensor:
    """Cut a position map (1,C,H,W) that is `factor` times coarser than the cut's map, for every patch of the batch.

    Returns:
        (images*patches,C,h,w).
    """
    unit = (place.cells[0] - 2 * place.halo, place.cells[1] - 2 * place.halo)
    # as large as all patches together; beyond the image the last position is repeated
    height, width = (place.grid[axis] * unit[axis] // factor for axis in (0, 1))
    grid = replicate(grid, (0, max(0, width - grid.shape[-1]), 0, max(0, height - grid.shape[-2])))
    grid = grid[..., :height, :width]
    patches = cut_map(grid, place.grid, (1, 1), place.halo // factor, "zeros")
    return patches.repeat(place.images, 1, 1, 1)


@contextmanager
def added_grids(model: nn.Module, tail: Sequence[nn.Module], place: Place) -> Iterator[None]:
    """Learned grids that Visformer (per stage, NCHW) and VOLO (one, NHWC) add between stages."""
    changes: list[tuple[object, str, Any]] = []
    for name, grid in model.named_parameters(recurse=False):
        if not name.startswith("pos_embed") or grid.ndim != 4:
            continue
        last = name == "pos_embed"  # VOLO's, channels last
        grid_map = rearrange(grid, "b h w c -> b c h w") if last else grid
        factor = round(place.whole[0] / grid_map.shape[-2])
        if factor < 2:  # as fine as the cut's map: it was added before
            continue
        part = patch_part(grid_map, place, factor)
        changes.append((model, name, rearrange(part, "b c h w -> b h w c") if last else part))
    with Overridden(changes):
        yield


@contextmanager
def fourier_grids(model: nn.Module, tail: Sequence[nn.Module], place: Place) -> Iterator[None]:
    """EdgeNeXt's encodings, which are made of the map's size and would stretch over every patch."""
    encodings = [module for module in tail if type(module).__name__ == "PositionalEncodingFourier"]
    with Overridden([(module, "forward", _FourierPart(module.forward, place)) for module in encodings]):
        yield


class _FourierPart:
    def __init__(self, encode: Any, place: Place) -> None:
        self.encode = encode
        self.place = place

    def __call__(self, shape: tuple[int, int, int]) -> Tensor:
        factor = max(1, self.place.cells[0] // shape[1])
        whole = (1, max(1, self.place.whole[0] // factor), max(1, self.place.whole[1] // factor))
        return patch_part(self.encode(whole), self.place, factor)
