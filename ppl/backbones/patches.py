"""Patch operations on whatever a stage returns: maps, channels-last maps, tokens, lists of maps."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from ppl.backbones.errors import UnsupportedBackboneError
from ppl.backbones.padding import replicate
from ppl.backbones.stages import Stage
from ppl.errors import PPLValueError
from ppl.layers import patch_destruct, patch_merge
from ppl.layers.grid import check_grid_fits

__all__ = ["cut_features", "image_grid", "map_size", "merge_maps", "to_map", "token_grid"]

_FILL = {"zeros": "constant", "reflect": "reflect"}


def cut_map(x: Tensor, grid: tuple[int, int], multiple: tuple[int, int], halo: int, padding: str) -> Tensor:
    """Patches (B*gh*gw,C,h+2*halo,w+2*halo) of a map (B,C,H,W); h and w are multiples of `multiple`."""
    if not halo:
        return patch_destruct(x, grid, multiple=multiple)
    rows, columns = grid
    height, width = x.shape[-2:]
    check_grid_fits(grid, height, width)
    h = -(-height // (rows * multiple[0])) * multiple[0]
    w = -(-width // (columns * multiple[1])) * multiple[1]
    # beyond the image there is no real context: there the halo is filled as the padding says
    if padding == "reflect" and halo >= min(height, width):
        raise PPLValueError(f"a halo of {halo} cells cannot be reflected in a {height}x{width} map: use a smaller one")
    around = (halo, halo, halo, halo)
    x = replicate(x, around) if padding == "replicate" else F.pad(x, around, mode=_FILL[padding])
    x = F.pad(x, (0, columns * w - width, 0, rows * h - height))
    windows = x.unfold(2, h + 2 * halo, h).unfold(3, w + 2 * halo, w)
    return rearrange(windows, "b c gh gw h w -> (b gh gw) c h w")


def cut_features(
    features: Any,
    stage: Stage,
    grid: tuple[int, int],
    stride: int,
    *,
    whole: tuple[int, int],
    halo: int = 0,
    padding: str = "zeros",
) -> tuple[Any, tuple[int, int]]:
    """Cut a stage's output into patches of the same layout.

    Prefix tokens go with every patch; the maps of a list are cut at the same places of the image.

    Args:
        features: what the stage returned.
        stage: its description.
        grid: rows and columns of patches.
        stride: cells that patches are multiples of: the stride left after the cut, or more.
        whole: (H,W) of what the stage returned, which tells how tokens lie.
        halo: cells of context kept around every patch.
        padding: how the halo is filled beyond the edge of the image.

    Returns:
        The patches, as the stage would return them for a batch of patches, and a patch's (h,w) without halo.

    Raises:
        PPLValueError: if the grid is larger than the map.
    """
    if stage.layout == "list":
        return _cut_list(features, grid, stride, halo, padding)
    if stage.layout == "NCHW":
        x = features
    elif stage.layout == "NHWC":
        x = rearrange(features, "b h w c -> b c h w")
    else:
        x = rearrange(features[:, stage.prefix_tokens :], "b (h w) c -> b c h w", h=whole[0], w=whole[1])
    patches = cut_map(x, grid, (stride, stride), halo, padding)
    cells = (patches.shape[-2] - 2 * halo, patches.shape[-1] - 2 * halo)
    if stage.layout == "NCHW":
        return patches, cells
    if stage.layout == "NHWC":
        return rearrange(patches, "b c h w -> b h w c"), cells
    tokens = rearrange(patches, "b c h w -> b (h w) c")
    if stage.prefix_tokens:
        prefix = features[:, : stage.prefix_tokens].repeat_interleave(grid[0] * grid[1], dim=0)
        tokens = torch.cat([prefix, tokens], dim=1)
    return tokens, cells


def _cut_list(
    features: Any, grid: tuple[int, int], stride: int, halo: int, padding: str
) -> tuple[Any, tuple[int, int]]:
    height, width = finest_size(features)
    cells = (-(-height // (grid[0] * stride)) * stride, -(-width // (grid[1] * stride)) * stride)
    patches = []
    for member in features:
        if member.ndim == 3:  # prefix tokens beside the maps
            patches.append(member.repeat_interleave(grid[0] * grid[1], dim=0))
            continue
        ratio = max(1, round(height / member.shape[-2]))
        unit = (cells[0] // ratio, cells[1] // ratio)
        patches.append(cut_map(member, grid, unit, halo // ratio, padding))
    return type(features)(patches), cells


def finest_size(features: Any) -> tuple[int, int]:
    """(H,W) of the finest map in a list."""
    finest = max((member for member in features if member.ndim == 4), key=lambda member: int(member.shape[-1]))
    return int(finest.shape[-2]), int(finest.shape[-1])


def map_size(
    features: Any, stage: Stage, size: tuple[int, int] | None, stride: int, image_size: tuple[int, int] | None = None
) -> tuple[int, int]:
    """(H,W) of a stage's output.

    Args:
        features: what the stage returned.
        stage: its description.
        size: (h,w) of the final map, from which the grid of tokens is told where no image is known; None takes it to be
            a square.
        stride: cells of the stage's map per cell of the final map.
        image_size: (H,W) of the images. A final map alone does not tell 13x14 tokens from 14x13.
    """
    if stage.layout == "NCHW":
        return int(features.shape[2]), int(features.shape[3])
    if stage.layout == "NHWC":
        return int(features.shape[1]), int(features.shape[2])
    if stage.layout == "list" and any(member.ndim == 4 for member in features):
        return finest_size(features)
    tokens, prefix = (features, stage.prefix_tokens) if stage.layout == "NLC" else (features[-1], 1)
    count = int(tokens.shape[1]) - prefix
    if image_size is not None:
        grid = image_grid(count, image_size, stage.reduction)
        if grid is not None:
            return grid
    side = -(-round(count**0.5) // stride)
    return token_grid(count, size or (side, side), stride)


def image_grid(count: int, size: tuple[int, int], reduction: int) -> tuple[int, int] | None:
    """Rows and columns of `count` tokens over an image of `size`, if they are a grid of that reduction at all.

    Example:
        >>> image_grid(6, (64, 96), 32), image_grid(7, (64, 96), 32)
        ((2, 3), None)
    """
    for height in (size[0] // reduction, -(-size[0] // reduction)):
        if height and count % height == 0 and count // height in (size[1] // reduction, -(-size[1] // reduction)):
            return height, count // height
    return None


def token_grid(count: int, size: tuple[int, int], stride: int) -> tuple[int, int]:
    """Rows and columns of `count` tokens whose grid is `stride` times finer than a map of `size`.

    Example:
        >>> token_grid(15 * 22, size=(8, 11), stride=2)
        (15, 22)
    """
    for height in range(size[0] * stride, max(0, (size[0] - 1) * stride), -1):
        width = count // height
        if height * width == count and -(-width // stride) == size[1]:
            return height, width
    raise PPLValueError(
        f"{count} tokens are no grid over a map of {size[0]}x{size[1]}: give the final map's (h,w) as size"
    )


def to_map(output: Any, final: Stage, size: tuple[int, int] | None) -> Tensor:
    """The final map (B,C,h,w) in what a backbone returns.

    Args:
        output: what its `forward_features` returned.
        final: how that lies.
        size: (h,w), needed for tokens; None takes them to be a square.
    """
    result: Tensor = output
    if final.layout == "list":
        return next(member for member in output if member.ndim == 4)  # type: ignore[no-any-return]
    if final.layout == "NHWC":
        return rearrange(result, "b h w c -> b c h w")
    if final.layout == "NLC":
        count = result.shape[1] - final.prefix_tokens
        side = round(count**0.5)
        height, width = token_grid(count, size or (side, side), 1)
        return rearrange(result[:, final.prefix_tokens :], "b (h w) c -> b c h w", h=height, w=width)
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

    Raises:
        UnsupportedBackboneError: if the maps are larger than their cells: something was spread over the patches.
    """
    height, width = cells[0] // stride, cells[1] // stride
    margin = halo // stride
    full = (height + 2 * margin, width + 2 * margin)
    if maps.shape[-2] > full[0] or maps.shape[-1] > full[1]:
        raise UnsupportedBackboneError(
            f"patches of {cells[0]}x{cells[1]} cells came out as {tuple(maps.shape[-2:])} instead of {full}: "
            "the layers after this cut are tied to one map size; choose another cut"
        )
    if maps.shape[-2:] != full:
        maps = F.interpolate(maps, full, mode="bilinear", align_corners=False)
    if margin:
        maps = maps[..., margin:-margin, margin:-margin]
    merged = patch_merge(maps, grid)
    if merged.shape[-2] < size[0] or merged.shape[-1] < size[1]:
        return F.interpolate(merged, size, mode="bilinear", align_corners=False)
    return merged[..., : size[0], : size[1]]
