"""Relative positions that are stored for one map size: a patch gets the part that its cells span."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ppl.backbones.families.family import Tiling
from ppl.backbones.view import Changes

__all__ = ["cropped_biases", "cropped_tables", "halved"]

_GETTERS = ("get_bias", "_get_rel_pos_bias", "get_attention_biases")


def halved(size: tuple[int, int]) -> tuple[int, int]:
    """Return the size of a map after another layer of stride two."""
    return -(-size[0] // 2), -(-size[1] // 2)


def levels(whole: tuple[int, int], patch: tuple[int, int]) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
    """Yield the sizes of the whole map and of a patch at the cut and after each further stride of two."""
    while True:
        yield whole, patch
        if min(whole) <= 1:
            return
        whole, patch = halved(whole), halved(patch)


def _axis(count: int, tiling: Tiling, device: torch.device) -> tuple[Tensor, tuple[int, int]]:
    """Return the indices of prefix tokens and the first patch's cells among `count` tokens, and the map's size."""
    for whole, patch in levels(tiling.whole, tiling.cells):
        for prefix in range(9):
            if count - prefix == whole[0] * whole[1]:
                rows = torch.arange(patch[0], device=device).clamp(max=whole[0] - 1)
                columns = torch.arange(patch[1], device=device).clamp(max=whole[1] - 1)
                cells = (rows[:, None] * whole[1] + columns).flatten() + prefix
                return torch.cat([torch.arange(prefix, device=device), cells]), whole
    raise ValueError(f"{count} tokens are no map of {tiling.whole} or a coarser one")


def crop_bias(bias: Tensor, tiling: Tiling) -> Tensor:
    """Crop a bias (...,N,M) between the cells of the whole map to the cells of a patch.

    Biases depend on offsets alone, so the part of the first patch serves all patches.
    """
    queries, _ = _axis(bias.shape[-2], tiling, bias.device)
    keys, _ = _axis(bias.shape[-1], tiling, bias.device)
    return bias.index_select(-2, queries).index_select(-1, keys)


def cropped_biases(model: nn.Module, tail: Mapping[str, nn.Module], tiling: Tiling) -> Changes:
    """Crop the biases of the tail's attention to a patch's cells; layers that reshape tokens get a patch's size."""
    changes: dict[str, dict[str, Any]] = {}
    for name, module in tail.items():
        getters = [getter for getter in _GETTERS if callable(getattr(type(module), getter, None))]
        if getters:
            changes[name] = {getter: _Cropped(getattr(module, getter), tiling) for getter in getters}
        if type(module).__name__ == "Downsample" and hasattr(module, "resolution"):
            for whole, patch in levels(tiling.whole, tiling.cells):
                if tuple(module.resolution) == whole:  # type: ignore[arg-type]
                    changes[name] = {"resolution": patch}
    for name, module in model.named_modules():  # BEiT computes its shared bias before all blocks.
        if type(module).__name__ == "RelativePositionBias":
            changes[name] = {"forward": _Cropped(module.forward, tiling)}
    return changes


class _Cropped:
    def __init__(self, get: Any, tiling: Tiling) -> None:
        self.get = get
        self.tiling = tiling

    def __call__(self, *args: Any, **kwargs: Any) -> Tensor:
        return crop_bias(self.get(*args, **kwargs), self.tiling)


def cropped_tables(model: nn.Module, tail: Mapping[str, nn.Module], tiling: Tiling) -> Changes:
    """Crop the tables of offsets of global attention to the offsets within a patch.

    Uncropped tables would be read from the wrong end (MViTv2) or resampled to the patch (SAM).
    """
    changes: dict[str, dict[str, Any]] = {}
    sizes = list(levels(tiling.whole, tiling.cells))
    coarsest = min((len(table) for table in _spatial(model)), default=0)
    for name, module in tail.items():
        block: Any = module
        if getattr(block, "window_size", None) == 0 and getattr(block.attn, "use_rel_pos", False):
            # SAM's global attention; windows keep their tables.
            changes[f"{name}.attn".lstrip(".")] = _tables(block.attn, tiling.whole, tiling.cells)
        elif getattr(block, "rel_pos_type", None) == "spatial":
            # The length of the table, against the coarsest one, tells the number of strides after the cut.
            finer = round((len(block.rel_pos_h) + 1) / (coarsest + 1))
            whole, patch = sizes[min(max(1, tiling.stride // finer).bit_length(), len(sizes)) - 1]
            changes[name] = {
                "rel_pos_h": as_read(block.rel_pos_h, whole[0], patch[0]),
                "rel_pos_w": as_read(block.rel_pos_w, whole[1], patch[1]),
            }
        elif type(module).__name__ == "PosEmbedRel":
            changes[name] = _bottleneck(module, tiling)
    return changes


def _spatial(model: nn.Module) -> Iterator[Tensor]:
    """Yield the tables of row offsets of an MViTv2."""
    for module in model.modules():
        if getattr(module, "rel_pos_type", None) == "spatial":
            yield module.rel_pos_h  # type: ignore[misc]


def as_read(table: Tensor, whole: int, patch: int) -> Tensor:
    """Return the entries of a table for the offsets within a patch.

    MViTv2 counts offsets from the beginning of the table, also for maps smaller than its own.

    Args:
        table: (2n-1,C) of offsets.
        whole: cells of the whole map along the axis.
        patch: cells of a patch.

    Returns:
        (2*patch-1,C).

    Example:
        >>> as_read(torch.arange(13.0)[:, None], whole=4, patch=2).flatten().tolist()
        [2.0, 3.0, 4.0]
    """
    offsets = torch.arange(2 * patch - 1, device=table.device) + whole - patch
    return table[offsets.clamp(0, table.shape[0] - 1)]


def _tables(module: Any, whole: tuple[int, int], patch: tuple[int, int]) -> dict[str, Any]:
    return {
        "rel_pos_h": middle(resized(module.rel_pos_h, whole[0]), patch[0]),
        "rel_pos_w": middle(resized(module.rel_pos_w, whole[1]), patch[1]),
    }


def _bottleneck(module: Any, tiling: Tiling) -> dict[str, Any]:
    for whole, patch in levels(tiling.whole, tiling.cells):
        if whole == (module.height, module.width):
            return {
                "height": patch[0],
                "width": patch[1],
                "height_rel": middle(module.height_rel, patch[0]),
                "width_rel": middle(module.width_rel, patch[1]),
            }
    return {}


def resized(table: Tensor, size: int) -> Tensor:
    """Resample a table (2n-1,C) of offsets for maps of `size` cells, as SAM does for images of another size."""
    length = 2 * size - 1
    if table.shape[0] == length:
        return table
    return F.interpolate(table.T[None], size=length, mode="linear")[0].T


def middle(table: Tensor, size: int) -> Tensor:
    """Return the offsets -(size-1)..size-1 of a table (2n-1,C); offsets beyond its ends repeat the last entry."""
    centre = table.shape[0] // 2
    offsets = torch.arange(centre - size + 1, centre + size, device=table.device)
    return table[offsets.clamp(0, table.shape[0] - 1)]
