"""Cut the output of a stage into patches: maps, channels-last maps, tokens, lists of maps."""

from __future__ import annotations

from typing import Any

import torch
from einops import rearrange
from torch import Tensor

from ppl.backbones.stages import Stage
from ppl.errors import PPLValueError
from ppl.layers.tiling import cut_patches

__all__ = ["cut_features", "image_grid", "map_size", "tensors_of", "to_map", "token_grid"]


def tensors_of(output: Any) -> list[Tensor]:
    """Return the tensors of a stage's output: a tensor or a (nested) sequence of tensors."""
    if isinstance(output, Tensor):
        return [output]
    if isinstance(output, (list, tuple)):
        return [tensor for member in output for tensor in tensors_of(member)]
    return []


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

    Every patch gets all prefix tokens; the maps of a list are cut at the same places of the image.

    Args:
        features: the stage's output.
        stage: its description.
        grid: rows and columns of patches.
        stride: the sides of patches are multiples of it: the stride of the layers after the cut, or more.
        whole: (H,W) of the stage's output, which tells how tokens lie.
        halo: cells of context around every patch.
        padding: filling of the halo beyond the edge of the image.

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
    patches = cut_patches(x, grid, (stride, stride), (halo, halo), padding)
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
    height, width = _finest_size(features)
    cells = (-(-height // (grid[0] * stride)) * stride, -(-width // (grid[1] * stride)) * stride)
    patches = []
    for member in features:
        if member.ndim == 3:  # prefix tokens beside the maps
            patches.append(member.repeat_interleave(grid[0] * grid[1], dim=0))
            continue
        ratio = max(1, round(height / member.shape[-2]))
        unit = (cells[0] // ratio, cells[1] // ratio)
        patches.append(cut_patches(member, grid, unit, (halo // ratio, halo // ratio), padding))
    return type(features)(patches), cells


def _finest_size(features: Any) -> tuple[int, int]:
    """Return (H,W) of the finest map in a list."""
    finest = max((member for member in features if member.ndim == 4), key=lambda member: int(member.shape[-1]))
    return int(finest.shape[-2]), int(finest.shape[-1])


def map_size(
    features: Any, stage: Stage, size: tuple[int, int] | None, stride: int, image_size: tuple[int, int] | None = None
) -> tuple[int, int]:
    """Return (H,W) of a stage's output.

    Args:
        features: the stage's output.
        stage: its description.
        size: (h,w) of the final map, which tells the grid of tokens where no image size is given; None means a square.
        stride: cells of the stage's map per cell of the final map.
        image_size: (H,W) of the images. A final map alone does not tell 13x14 tokens from 14x13.
    """
    if stage.layout == "NCHW":
        return int(features.shape[2]), int(features.shape[3])
    if stage.layout == "NHWC":
        return int(features.shape[1]), int(features.shape[2])
    if stage.layout == "list" and any(member.ndim == 4 for member in features):
        return _finest_size(features)
    tokens, prefix = (features, stage.prefix_tokens) if stage.layout == "NLC" else (features[-1], 1)
    count = int(tokens.shape[1]) - prefix
    if image_size is not None:
        grid = image_grid(count, image_size, stage.reduction)
        if grid is not None:
            return grid
    side = -(-round(count**0.5) // stride)
    return token_grid(count, size or (side, side), stride)


def image_grid(count: int, size: tuple[int, int], reduction: int) -> tuple[int, int] | None:
    """Return rows and columns of `count` tokens over an image of `size`; None if they are no grid of that reduction.

    Example:
        >>> image_grid(6, (64, 96), 32), image_grid(7, (64, 96), 32)
        ((2, 3), None)
    """
    for height in (size[0] // reduction, -(-size[0] // reduction)):
        if height and count % height == 0 and count // height in (size[1] // reduction, -(-size[1] // reduction)):
            return height, count // height
    return None


def token_grid(count: int, size: tuple[int, int], stride: int) -> tuple[int, int]:
    """Return rows and columns of `count` tokens whose grid is `stride` times finer than a map of `size`.

    Raises:
        PPLValueError: if there is no such grid.

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
    """Return the final map (B,C,h,w) in the output of a backbone.

    Args:
        output: the result of the backbone's `forward_features`.
        final: description of the final map.
        size: (h,w), needed for tokens; None means a square.
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
