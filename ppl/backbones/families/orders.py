"""Cut tokens that do not lie row by row, and features of more than one kind."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn

from ppl.backbones.patches import cut_features
from ppl.backbones.stages import Stage
from ppl.backbones.timm_support import require

__all__ = ["cut_hiera", "cut_pixels_and_patches", "hiera_order", "last_of_list", "last_of_states"]


def last_of_list(output: Any) -> Tensor:
    """Return the last token map of CoaT's parallel blocks, the coarsest of one map per scale."""
    result: Tensor = output[-1] if isinstance(output, (list, tuple)) else output
    return result


def last_of_states(output: Any) -> Tensor:
    """Return EfficientViM's final map (B,N,C), which follows the hidden states, channels first."""
    final: Tensor = output[-1]
    return rearrange(final, "b c n -> b n c")


def cut_pixels_and_patches(
    model: nn.Module, features: Any, stage: Stage, *args: Any, **kwargs: Any
) -> tuple[Any, tuple[int, int]]:
    """Cut the pixel embeddings (B*N,P,C) and the patch tokens (B,1+N,D) of TNT at the same places."""
    pixels, tokens = features
    inner = replace(stage, layout="NLC", prefix_tokens=0)
    outer = replace(stage, layout="NLC", prefix_tokens=1)
    rows = rearrange(pixels, "(b n) p c -> b n (p c)", b=tokens.shape[0])
    rows, _ = cut_features(rows, inner, *args, **kwargs)
    tokens, cells = cut_features(tokens, outer, *args, **kwargs)
    return (rearrange(rows, "b n (p c) -> (b n) p c", p=pixels.shape[1]), tokens), cells


def cut_hiera(
    model: nn.Module,
    features: Any,
    stage: Stage,
    grid: tuple[int, int],
    stride: int,
    *,
    whole: tuple[int, int],
    halo: int = 0,
    padding: str = "zeros",
) -> tuple[Any, tuple[int, int]]:
    """Cut the tokens of Hiera, which lie by mask units, not by rows, until the last pooling."""
    rows = features[:, hiera_order(model, stage, whole, features.device)]
    patches, cells = cut_features(rows, stage, grid, stride, whole=whole, halo=halo, padding=padding)
    order = hiera_order(model, stage, (cells[0] + 2 * halo, cells[1] + 2 * halo), features.device)
    return patches[:, order.argsort()], cells


def hiera_order(model: Any, stage: Stage, size: tuple[int, int], device: torch.device | None = None) -> Tensor:
    """Return the index (h*w,) that sorts the tokens after a block of Hiera row by row.

    Args:
        model: the Hiera.
        stage: the stage whose last block returns the tokens.
        size: (h,w) of the map after that block.
        device: device of the index.
    """
    block = int(stage.module.rpartition(".")[2])
    reroll = copy.copy(require(model, "reroll", model))
    schedule = require(reroll, "schedule", model)
    reroll.schedule = {**schedule, block: (schedule[block][0], list(size))}
    tokens = torch.arange(size[0] * size[1], dtype=torch.float64)  # on the CPU: MPS has no float64
    order: Tensor = reroll(tokens[None, :, None], block).flatten().long()
    return order.to(device)
