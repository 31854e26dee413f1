"""Read layout, channels and reduction off the output of a stage."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ppl.backbones.families import Family
from ppl.backbones.patches import image_grid
from ppl.backbones.stages import Layout, Stage
from ppl.errors import PPLValueError

__all__ = ["describe", "is_wrapped"]


def is_wrapped(output: Any, family: Family) -> bool:
    """Tell whether a stage returns a tuple of which only the first member, tokens or a map, is its feature."""
    if not isinstance(output, (list, tuple)) or not output or family.cut is not None:
        return False
    first = output[0]
    if not isinstance(first, Tensor):
        return False
    return first.ndim == 3 or (first.ndim == 4 and not all(isinstance(member, Tensor) for member in output))


def describe(
    model: nn.Module,
    name: str,
    leaf: str,
    output: Any,
    size: tuple[int, int],
    declared: dict[str, Any],
    family: Family,
) -> Stage:
    """Describe a stage by its output.

    Args:
        model: the backbone.
        name: name of the stage.
        leaf: dotted name of its last block.
        output: the stage's output.
        size: (H,W) of the image.
        declared: the stage's entry in timm's `feature_info`, or an empty dictionary.
        family: family of the backbone.

    Raises:
        PPLValueError: if the output is no map.
    """
    channels = declared.get("num_chs")
    if isinstance(output, (list, tuple)) and output and all(isinstance(member, Tensor) for member in output):
        maps = [member for member in output if member.ndim == 4]
        if maps:
            finest = max(maps, key=lambda member: int(member.shape[-1]))
            reduction = _reduction(size, finest.shape[-2:], declared.get("reduction"))
            return Stage(name, leaf, "list", int(finest.shape[1]), reduction)
        if family.cut is not None:
            return Stage(name, leaf, "list", int(declared["num_chs"]), int(declared["reduction"]))
    if isinstance(output, Tensor) and output.ndim == 4:
        layout = _map_layout(model, output.shape, size, channels)
        cells = output.shape[2:] if layout == "NCHW" else output.shape[1:3]
        found = output.shape[1] if layout == "NCHW" else output.shape[3]
        return Stage(name, leaf, layout, int(found), _reduction(size, cells, declared.get("reduction")))
    if isinstance(output, Tensor) and output.ndim == 3:
        # The other tokens must form a grid over the image, which tells the number of prefix tokens.
        for prefix in (getattr(model, "num_prefix_tokens", 0), *range(9)):
            cells = output.shape[1] - prefix
            reduction = int(declared.get("reduction") or _token_reduction(cells, size))
            if image_grid(cells, size, reduction):
                return Stage(name, leaf, "NLC", int(output.shape[2]), reduction, prefix)
    shape = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
    raise PPLValueError(f"stage {name!r} of {type(model).__name__} returns no map but {shape}: choose another stage")


def _map_layout(model: nn.Module, shape: torch.Size, size: tuple[int, int], channels: int | None) -> Layout:
    """Tell NCHW from NHWC: by the declared channels, the shape of the image, or the model's `output_fmt`."""
    sides = {"NCHW": (shape[1], shape[2], shape[3]), "NHWC": (shape[3], shape[1], shape[2])}
    possible: list[Layout] = ["NCHW", "NHWC"]
    by_channels = [layout for layout in possible if sides[layout][0] == channels]
    if len(by_channels) == 1:
        return by_channels[0]
    # The map has about the aspect ratio of the image.
    errors = {
        layout: abs(sides[layout][1] / sides[layout][2] - size[0] / size[1]) for layout in (by_channels or possible)
    }
    if size[0] != size[1] and len(set(errors.values())) > 1:
        return min(errors, key=lambda layout: errors[layout])
    return "NHWC" if getattr(model, "output_fmt", "NCHW") == "NHWC" else "NCHW"


def _token_reduction(count: int, size: tuple[int, int]) -> int:
    return max(1, round(math.sqrt(size[0] * size[1] / max(count, 1))))


def _reduction(size: tuple[int, int], cells: Sequence[int], declared: Any) -> int:
    """Return the pixels per cell: as declared if the measure is near that or not clean, else as measured.

    Convolutions without padding lose cells, which distorts the measure on small maps.
    """
    rows, columns = size[0] / cells[0], size[1] / cells[1]
    if declared is not None and (abs(declared - rows) <= 0.35 * rows or rows != columns):
        return int(declared)
    return max(1, round(rows))
