"""Relative positions that are stored for one map size: a patch takes the part of the store that its cells span."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ppl.backbones.families.family import Place
from ppl.backbones.families.override import Overridden

__all__ = ["cropped_biases", "cropped_tables", "halved"]

_GETTERS = ("get_bias", "_get_rel_pos_bias", "get_attention_biases")


def halved(size: tuple[int, int]) -> tuple[int, int]:
    """Size of a map after one more layer of stride two."""
    return -(-size[0] // 2), -(-size[1] // 2)


def levels(whole: tuple[int, int], patch: tuple[int, int]) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
    """Sizes of the whole map and of a patch at the cut and after each further stride of two."""
    while True:
        yield whole, patch
        if min(whole) <= 1:
            return
        whole, patch = halved(whole), halved(patch)


def _axis(count: int, place: Place, device: torch.device) -> tuple[Tensor, tuple[int, int]]:
    """Indices, among `count` tokens of a whole map, of prefix tokens and the first patch's cells; the map's size."""
    for whole, patch in levels(place.whole, place.cells):
        for prefix in range(9):
            if count - prefix == whole[0] * whole[1]:
                rows = torch.arange(patch[0], device=device).clamp(max=whole[0] - 1)
                columns = torch.arange(patch[1], device=device).clamp(max=whole[1] - 1)
                cells = (rows[:, None] * whole[1] + columns).flatten() + prefix
                return torch.cat([torch.arange(prefix, device=device), cells]), whole
    raise ValueError(f"{count} tokens are no map of {place.whole} or a coarser one")


def crop_bias(bias: Tensor, place: Place) -> Tensor:
    """Of a bias (...,N,M) between the cells of the whole map, the part between the cells of a patch.

    Biases depend on the offset alone, so the first patch's part serves all.
    """
    queries, _ = _axis(bias.shape[-2], place, bias.device)
    keys, _ = _axis(bias.shape[-1], place, bias.device)
    return bias.index_select(-2, queries).index_select(-1, keys)


@contextmanager
def cropped_biases(model: nn.Module, tail: Sequence[nn.Module], place: Place) -> Iterator[None]:
    """Let the tail's attention see the biases of a patch's cells; layers that reshape tokens see a patch's size."""
    changes: list[tuple[object, str, Any]] = []
    for module in tail:
        getters = [getter for getter in _GETTERS if callable(getattr(type(module), getter, None))]
        changes += [(module, getter, _Cropped(getattr(module, getter), place)) for getter in getters]
        if type(module).__name__ == "Downsample" and hasattr(module, "resolution"):
            for whole, patch in levels(place.whole, place.cells):
                if tuple(module.resolution) == whole:  # type: ignore[arg-type]
                    changes.append((module, "resolution", patch))
    for module in model.modules():  # BEiT's shared bias is computed before all blocks
        if type(module).__name__ == "RelativePositionBias":
            changes.append((module, "forward", _Cropped(module.forward, place)))
    with Overridden(changes):
        yield


class _Cropped:
    def __init__(self, get: Any, place: Place) -> None:
        self.get = get
        self.place = place

    def __call__(self, *args: Any, **kwargs: Any) -> Tensor:
        return crop_bias(self.get(*args, **kwargs), self.place)


@contextmanager
def cropped_tables(model: nn.Module, tail: Sequence[nn.Module], place: Place) -> Iterator[None]:
    """Give global attention the middle of its tables of offsets, which is what a patch's cells span.

    Without it the tables would be read from the wrong end (MViTv2) or squeezed to the patch (SAM).
    """
    changes: list[tuple[object, str, Any]] = []
    sizes = list(levels(place.whole, place.cells))
    coarsest = min((len(table) for table in _spatial(model)), default=0)
    for module in tail:
        block: Any = module
        if getattr(block, "window_size", None) == 0 and getattr(block.attn, "use_rel_pos", False):
            changes += _tables(block.attn, place.whole, place.cells)  # SAM; its windows keep their own tables
        elif getattr(block, "rel_pos_type", None) == "spatial":
            # how much finer its map is than the final one tells how many strides behind the cut it stands
            finer = round((len(block.rel_pos_h) + 1) / (coarsest + 1))
            whole, patch = sizes[min(max(1, place.stride // finer).bit_length(), len(sizes)) - 1]
            changes.append((block, "rel_pos_h", as_read(block.rel_pos_h, whole[0], patch[0])))
            changes.append((block, "rel_pos_w", as_read(block.rel_pos_w, whole[1], patch[1])))
        elif type(module).__name__ == "PosEmbedRel":
            changes += _bottleneck(module, place)
    with Overridden(changes):
        yield


def _spatial(model: nn.Module) -> Iterator[Tensor]:
    """The tables of offsets between rows that an MViTv2 has."""
    for module in model.modules():
        if getattr(module, "rel_pos_type", None) == "spatial":
            yield module.rel_pos_h  # type: ignore[misc]


def as_read(table: Tensor, whole: int, patch: int) -> Tensor:
    """The offsets that cells of a patch span, where a map of `whole` cells reads them.

    MViTv2 counts offsets from the beginning of its table, also for maps smaller than those it was made for.

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


def _tables(module: Any, whole: tuple[int, int], patch: tuple[int, int]) -> list[tuple[object, str, Any]]:
    return [
        (module, "rel_pos_h", middle(resized(module.rel_pos_h, whole[0]), patch[0])),
        (module, "rel_pos_w", middle(resized(module.rel_pos_w, whole[1]), patch[1])),
    ]


def _bottleneck(module: Any, place: Place) -> list[tuple[object, str, Any]]:
    for whole, patch in levels(place.whole, place.cells):
        if whole == (module.height, module.width):
            return [
                (module, "height", patch[0]),
                (module, "width", patch[1]),
                (module, "height_rel", middle(module.height_rel, patch[0])),
                (module, "width_rel", middle(module.width_rel, patch[1])),
            ]
    return []


def resized(table: Tensor, size: int) -> Tensor:
    """A table (2n-1,C) of offsets, resampled for maps of `size` cells as SAM does for images of another size."""
    length = 2 * size - 1
    if table.shape[0] == length:
        return table
    return F.interpolate(table.T[None], size=length, mode="linear")[0].T


def middle(table: Tensor, size: int) -> Tensor:
    """The offsets -(size-1)..size-1 of a table (2n-1,C) of offsets; those beyond its ends repeat them."""
    centre = table.shape[0] // 2
    offsets = torch.arange(centre - size + 1, centre + size, device=table.device)
    return table[offsets.clamp(0, table.shape[0] - 1)]
