"""Position embeddings that are added after the cut: every patch gets the part over its own cells."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from einops import rearrange
from torch import Tensor, nn

from ppl.backbones.families.family import Tiling
from ppl.backbones.view import Changes
from ppl.layers.padding import replicate
from ppl.layers.tiling import cut_patches

__all__ = ["added_grids", "fourier_grids", "patch_part"]


def patch_part(grid: Tensor, tiling: Tiling, factor: int) -> Tensor:
    """Cut a position map for every patch of the batch.

    Args:
        grid: (1,C,H,W), `factor` times coarser than the map at the cut.
        tiling: of the patches.
        factor: cells at the cut per cell of `grid`, along one axis.

    Returns:
        (images*patches,C,h,w).
    """
    unit = (tiling.cells[0] - 2 * tiling.halo, tiling.cells[1] - 2 * tiling.halo)
    # As large as all patches together: beyond the image the last position is repeated.
    height, width = (tiling.grid[axis] * unit[axis] // factor for axis in (0, 1))
    grid = replicate(grid, (0, max(0, width - grid.shape[-1]), 0, max(0, height - grid.shape[-2])))
    halo = tiling.halo // factor
    patches = cut_patches(grid[..., :height, :width], tiling.grid, (1, 1), (halo, halo))
    return patches.repeat(tiling.images, 1, 1, 1)


def added_grids(model: nn.Module, tail: Mapping[str, nn.Module], tiling: Tiling) -> Changes:
    """Cut the learned grids that Visformer (one per stage, NCHW) and VOLO (one, NHWC) add between stages."""
    changes: dict[str, Any] = {}
    for name, grid in model.named_parameters(recurse=False):
        if not name.startswith("pos_embed") or grid.ndim != 4:
            continue
        channels_last = name == "pos_embed"  # VOLO's
        grid_map = rearrange(grid, "b h w c -> b c h w") if channels_last else grid
        factor = round(tiling.whole[0] / grid_map.shape[-2])
        if factor < 2:  # A grid as fine as the map at the cut was added before the cut.
            continue
        part = patch_part(grid_map, tiling, factor)
        changes[name] = rearrange(part, "b c h w -> b h w c") if channels_last else part
    return {"": changes}


def fourier_grids(model: nn.Module, tail: Mapping[str, nn.Module], tiling: Tiling) -> Changes:
    """Cut EdgeNeXt's encodings, which are computed from the map's size and would stretch over every patch."""
    return {
        name: {"forward": _FourierPart(module.forward, tiling)}
        for name, module in tail.items()
        if type(module).__name__ == "PositionalEncodingFourier"
    }


class _FourierPart:
    def __init__(self, encode: Any, tiling: Tiling) -> None:
        self.encode = encode
        self.tiling = tiling

    def __call__(self, shape: tuple[int, int, int]) -> Tensor:
        factor = max(1, self.tiling.cells[0] // shape[1])
        whole = (1, max(1, self.tiling.whole[0] // factor), max(1, self.tiling.whole[1] // factor))
        return patch_part(self.encode(whole), self.tiling, factor)
