"""Cut maps into patches with context around them, and merge the results: the core of every patched branch."""

from __future__ import annotations

import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from ppl.errors import PPLValueError
from ppl.layers.grid import check_grid_fits
from ppl.layers.padding import pad_map
from ppl.layers.patch_destruct import patch_destruct
from ppl.layers.patch_merge import patch_merge

__all__ = ["cut_patches", "merge_patches"]


def cut_patches(
    x: Tensor, grid: tuple[int, int], multiple: tuple[int, int], halo: tuple[int, int] = (0, 0), padding: str = "zeros"
) -> Tensor:
    """Cut maps into patches that keep a halo of real context on every side.

    Args:
        x: maps (B,C,H,W).
        grid: rows and columns of patches.
        multiple: the height and width of a patch are multiples of it.
        halo: rows and columns of context on each side of a patch.
        padding: filling of the halo beyond the edge of the map: "zeros", "replicate" or "reflect".

    Returns:
        Patches (B*gh*gw,C,h+2*halo,w+2*halo), image-major.

    Raises:
        PPLValueError: if the grid is larger than the map, or "reflect" wider than the map.

    Example:
        >>> import torch
        >>> cut_patches(torch.zeros(1, 8, 14, 14), (2, 2), (2, 2), halo=(2, 2)).shape
        torch.Size([4, 8, 12, 12])
    """
    if not any(halo):
        return patch_destruct(x, grid, multiple=multiple)
    height, width = x.shape[-2:]
    check_grid_fits(grid, height, width)
    h = -(-height // (grid[0] * multiple[0])) * multiple[0]
    w = -(-width // (grid[1] * multiple[1])) * multiple[1]
    x = pad_map(x, (halo[1], halo[1], halo[0], halo[0]), padding)
    x = F.pad(x, (0, grid[1] * w - width, 0, grid[0] * h - height))
    windows = x.unfold(2, h + 2 * halo[0], h).unfold(3, w + 2 * halo[1], w)
    return rearrange(windows, "b c gh gw h w -> (b gh gw) c h w")


def merge_patches(
    maps: Tensor,
    grid: tuple[int, int],
    cells: tuple[int, int],
    halo: tuple[int, int] = (0, 0),
    size: tuple[int, int] | None = None,
) -> Tensor:
    """Crop the halo of the tail's maps and merge the maps, cell on cell with the un-patched map.

    Args:
        maps: the tail's maps of all patches (B*gh*gw,C,h,w).
        grid: rows and columns of patches.
        cells: height and width of a patch in cells of `maps`, without halo.
        halo: rows and columns of context in `maps`.
        size: (H,W) of the un-patched map; None keeps all of the merged map.

    Returns:
        Maps (B,C,H,W). Maps smaller than their patches (after convolutions without padding) are resized first,
        bilinearly.

    Raises:
        PPLValueError: if the maps are larger than their patches.
    """
    full = (cells[0] + 2 * halo[0], cells[1] + 2 * halo[1])
    if maps.shape[-2] > full[0] or maps.shape[-1] > full[1]:
        raise PPLValueError(
            f"the tail made maps of {maps.shape[-2]}x{maps.shape[-1]} cells from patches of {full[0]}x{full[1]} cells: "
            "its layers are tied to one map size; choose another cut"
        )
    if maps.shape[-2:] != full:
        maps = F.interpolate(maps, full, mode="bilinear", align_corners=False)
    maps = maps[..., halo[0] : full[0] - halo[0], halo[1] : full[1] - halo[1]] if any(halo) else maps
    merged = patch_merge(maps, grid)
    if size is None:
        return merged
    if merged.shape[-2] < size[0] or merged.shape[-1] < size[1]:
        return F.interpolate(merged, size, mode="bilinear", align_corners=False)
    return merged[..., : size[0], : size[1]]
