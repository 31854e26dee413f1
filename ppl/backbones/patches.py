"""Patch operations on whatever a stage returns: maps, channels-last maps, tokens, lists of maps."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from ppl.backbones.stages import Stage
from ppl.errors import PPLValueError
from ppl.layers import patch_destruct, patch_merge
from ppl.layers.grid import check_grid_fits

__all__ = ["cut_features", "merge_maps", "to_map"]

_FILL = {"zeros": "constant", "replicate": "replicate", "reflect": "reflect"}


def cut_map(x: Tensor, grid: tuple[int, int], multiple: int, halo: int, padding: str) -> Tensor:
    """Patches (B*gh*gw,C,h+2*halo,w+2*halo) of a map (B,C,H,W); h and w are multiples of `multiple`."""
    if not halo:
        return patch_destruct(x, grid, multiple=multiple)
    rows, columns = grid
    height, width = x.shape[-2:]
    check_grid_fits(grid, height, width)
    h = -(-height // (rows * multiple)) * multiple
    w = -(-width // (columns * multiple)) * multiple
    # beyond the image there is no real context: there the halo is filled as the padding says
    if padding == "reflect" and halo >= min(height, width):
        raise PPLValueError(f"a halo of {halo} cells cannot be reflected in a {height}x{width} map: use a smaller one")
    x = F.pad(x, (halo, halo, halo, halo), mode=_FILL[padding])
    x = F.pad(x, (0, columns * w - width, 0, rows * h - height))
    windows = x.unfold(2, h + 2 * halo, h).unfold(3, w + 2 * halo, w)
    return rearrange(windows, "b c gh gw h w -> (b gh gw) c h w")


def cut_features(
    features: Any, stage: Stage, grid: tuple[int, int], stride: int, halo: int, padding: str
) -> tuple[Any, tuple[int, int]]:
    """Cut a stage's output into patches of the same layout.

    Args:
        features: what the stage returned.
        stage: its description.
        grid: rows and columns of patches.
        stride: the stride left after the cut; patches are multiples of it.
        halo: cells of context kept around every patch.
        padding: how the halo is filled beyond the edge of the image.

    Returns:
        The patches, as the stage would return them for a batch of patches, and a patch's (h,w) without halo.
    """
    if stage.layout == "NHWC":
        patches = cut_map(rearrange(features, "b h w c -> b c h w"), grid, stride, halo, padding)
        cells = (patches.shape[-2] - 2 * halo, patches.shape[-1] - 2 * halo)
        return rearrange(patches, "b c h w -> b h w c"), cells
    patches = cut_map(features, grid, stride, halo, padding)
    return patches, (patches.shape[-2] - 2 * halo, patches.shape[-1] - 2 * halo)


def to_map(output: Any, final: Stage, size: tuple[int, int] | None) -> Tensor:
    """The final map (B,C,h,w) in what a backbone returns."""
    if final.layout == "NHWC":
        output = rearrange(output, "b h w c -> b c h w")
    result: Tensor = output
    return result


def merge_maps(
    maps: Tensor, grid: tuple[int, int], cells: tuple[int, int], stride: int, halo: int, size: tuple[int, int]
) -> Tensor:
    """Stitch the tail's maps of all patches, cell on cell with the un-patched map.

    Args:
        maps: final maps of the patches (B*gh*gw,C,h,w).
        grid: rows and columns of patches.
        cells: a patch's size at the cut, without halo.
        stride: the stride between the cut and these maps.
        halo: cells of context at the cut.
        size: (h,w) of the un-patched map.

    Returns:
        (B,C,h,w). Where layers without padding have made the maps smaller than the cells they stand for, each is first
        resized to them (bilinear).
    """
    height, width = cells[0] // stride, cells[1] // stride
    margin = halo // stride
    full = (height + 2 * margin, width + 2 * margin)
    if maps.shape[-2:] != full:
        maps = F.interpolate(maps, full, mode="bilinear", align_corners=False)
    if margin:
        maps = maps[..., margin:-margin, margin:-margin]
    merged = patch_merge(maps, grid)
    if merged.shape[-2] < size[0] or merged.shape[-1] < size[1]:
        return F.interpolate(merged, size, mode="bilinear", align_corners=False)
    return merged[..., : size[0], : size[1]]
