"""How the output of a layer lies: a map (B,C,h,w), a channels-last map (B,h,w,C) or tokens (B,N,C)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from einops import rearrange
from torch import Tensor

__all__ = ["MapLayout", "find_layout", "first_tensor", "to_map", "token_grid"]

# Cells by which a map may be shorter than the image's shape says: convolutions without padding lose some.
_LOST_CELLS = 1.5
# Class, distillation and register tokens that are looked for ahead of a grid of tokens.
_MOST_PREFIX_TOKENS = 16


@dataclass(frozen=True)
class MapLayout:
    """The layout of a layer's output.

    Attributes:
        kind: "NCHW", "NHWC", or "NLC" for tokens.
        channels: number of channels.
        size: (h,w) of the map in the pass in which the layout was found.
        prefix_tokens: tokens ahead of the grid ("NLC" alone).
    """

    kind: Literal["NCHW", "NHWC", "NLC"]
    channels: int
    size: tuple[int, int]
    prefix_tokens: int = 0


def first_tensor(output: Any) -> Tensor | None:
    """Return a layer's output if it is a tensor, the first member if it is a sequence that begins with one, or None."""
    if isinstance(output, (tuple, list)) and output:
        output = output[0]
    return output if isinstance(output, Tensor) else None


def find_layout(
    shape: Sequence[int], image_size: tuple[int, int], *, channels_last: bool = False, prefix_tokens: int | None = None
) -> MapLayout | None:
    """Tell from the shape of an output how its map lies, if there is one.

    Args:
        shape: shape of the output.
        image_size: (H,W) of the images that went in.
        channels_last: which layout a 4-D output has if both are possible.
        prefix_tokens: number of tokens ahead of the grid; None tries all numbers up to 16.

    Returns:
        The layout, or None if the output is not a map of two cells or more over the image.

    Example:
        >>> find_layout((1, 64, 8, 12), (128, 192))
        MapLayout(kind='NCHW', channels=64, size=(8, 12), prefix_tokens=0)
        >>> find_layout((1, 97, 64), (128, 192))
        MapLayout(kind='NLC', channels=64, size=(8, 12), prefix_tokens=1)
        >>> find_layout((1, 64, 1, 1), (128, 192)) is None
        True
    """
    if len(shape) == 4:
        _, first, second, third = shape
        possible = [
            MapLayout("NCHW", first, (second, third)),
            MapLayout("NHWC", third, (first, second)),
        ]
        if channels_last:
            possible.reverse()
        possible = [layout for layout in possible if _covers(layout.size, image_size)]
        return min(possible, key=lambda layout: _distortion(layout.size, image_size), default=None)
    if len(shape) == 3:
        prefixes = range(_MOST_PREFIX_TOKENS + 1) if prefix_tokens is None else (prefix_tokens,)
        for prefix in prefixes:
            grid = token_grid(shape[1] - prefix, image_size)
            if grid is not None and math.prod(grid) > 1:
                return MapLayout("NLC", shape[2], grid, prefix)
    return None


def token_grid(count: int, image_size: tuple[int, int]) -> tuple[int, int] | None:
    """Return the rows and columns of `count` square cells over an image, or None if they form no such grid.

    Example:
        >>> token_grid(96, (128, 192)), token_grid(97, (128, 192))
        ((8, 12), None)
    """
    if count < 1:
        return None
    height, width = image_size
    stride = math.sqrt(height * width / count)
    least = max(1, math.floor(height / stride))
    grids = [(rows, count // rows) for rows in (least, least + 1) if count % rows == 0]
    fitting = [grid for grid in grids if abs(grid[0] - height / stride) < 1 and abs(grid[1] - width / stride) < 1]
    return min(fitting, key=lambda grid: _distortion(grid, image_size), default=None)


def to_map(output: Tensor, layout: MapLayout, image_size: tuple[int, int]) -> Tensor:
    """Return the map (B,C,h,w) in a layer's output.

    Args:
        output: the output.
        layout: its layout.
        image_size: (H,W) of the images, which tells the grid of tokens.

    Raises:
        ValueError: if the tokens are no grid over an image of that size.

    Example:
        >>> import torch
        >>> to_map(torch.zeros(2, 97, 64), MapLayout("NLC", 64, (8, 12), 1), (128, 192)).shape
        torch.Size([2, 64, 8, 12])
    """
    if layout.kind == "NCHW":
        return output
    if layout.kind == "NHWC":
        return rearrange(output, "b h w c -> b c h w")
    tokens = output[:, layout.prefix_tokens :]
    grid = token_grid(tokens.shape[1], image_size)
    if grid is None:
        raise ValueError(f"{tokens.shape[1]} tokens are no grid over an image of {image_size[0]}x{image_size[1]}")
    return rearrange(tokens, "b (h w) c -> b c h w", h=grid[0])


def _covers(size: tuple[int, int], image_size: tuple[int, int]) -> bool:
    """Tell whether a map of that size may lie over the image: two cells or more, about as oblong as the image."""
    (height, width), (image_height, image_width) = size, image_size
    if height * width < 2 or height > image_height or width > image_width:
        return False
    # An attention matrix of N x N tokens passes for a map of a stride between 1 and 1.5.
    if 1 < image_height / height < 1.5:
        return False
    rows, columns = width * image_height / image_width, height * image_width / image_height
    return abs(height - rows) <= _LOST_CELLS or abs(width - columns) <= _LOST_CELLS


def _distortion(size: tuple[int, int], image_size: tuple[int, int]) -> float:
    """Return how much the shape of a map differs from that of the image, 0 if they are the same."""
    return abs(math.log(size[0] / size[1]) - math.log(image_size[0] / image_size[1]))
