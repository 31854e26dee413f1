"""Vision transformers whose head reads the class token alone: the last block computed for that token only."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ppl.layers.shared_copy import shared_copy

__all__ = ["short_copy"]


def short_copy(model: nn.Module, layer: str, prefix_tokens: int) -> nn.Module | None:
    """Copy a vision transformer of timm so that one block computes its class, distillation and register tokens alone.

    If it is the last block and the head reads these tokens alone, the logits and their gradients at the layer are those
    of the model: the caller compares the logits. The gradients of a class cost a small part of those through the whole
    block, since only the keys and values of the attention need the other tokens.

    Args:
        model: the classifier; the copy shares its weights.
        layer: name of the first norm of the block.
        prefix_tokens: the number of these tokens.

    Returns:
        The copy; None if the layer is not the first norm of a block that is known to the function.
    """
    name, _, norm = layer.rpartition(".")
    if norm != "norm1" or not prefix_tokens or not _is_known(model.get_submodule(name)):
        return None
    twin = shared_copy(model, model)
    block: Any = twin.get_submodule(name)
    block.forward = partial(_short_block, block, prefix_tokens)
    return twin


def _is_known(block: Any) -> bool:
    """Tell whether a block is that of timm's plain ViTs, without hooks that would be left out."""
    from timm.models.vision_transformer import Attention, Block

    if type(block) is not Block or type(block.attn) is not Attention or type(block.attn.qkv) is not nn.Linear:
        return False
    plain = isinstance(block.attn.q_norm, nn.Identity) and getattr(block.attn, "gate", None) is None
    return plain and not any(part._forward_hooks or part._forward_pre_hooks for part in block.modules())


def _short_block(block: Any, rows: int, x: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False) -> Tensor:
    """Return the first rows (B,rows,C) of what a block makes of tokens (B,N,C)."""
    if attn_mask is not None or is_causal:
        return type(block).forward(block, x, attn_mask, is_causal)  # type: ignore[no-any-return]
    own = x[:, :rows] + block.ls1(_short_attention(block.attn, block.norm1(x), rows))
    return own + block.ls2(block.mlp(block.norm2(own)))  # type: ignore[no-any-return]


def _short_attention(attention: Any, x: Tensor, rows: int) -> Tensor:
    """Return the first rows of an attention.

    The weights of keys and values are applied to the few queries and to the few mixtures of tokens, not to all tokens:
    q (W x) = (q W) x. The bias of the keys adds the same to all scores of a query, which softmax takes away.
    """
    heads, width = attention.num_heads, attention.head_dim
    to_query, to_key, to_value = attention.qkv.weight.unflatten(0, (3, heads, width))
    query = torch.einsum("brc,hdc->bhrd", x[:, :rows], to_query)
    bias = None if attention.qkv.bias is None else attention.qkv.bias.unflatten(0, (3, heads, 1, width))
    if bias is not None:
        query = query + bias[0]
    directions = (query * attention.scale @ to_key).flatten(1, 2)
    scores = directions @ x.transpose(1, 2)
    mixed = (scores.softmax(-1) @ x).unflatten(1, (heads, rows))
    values = mixed @ to_value.transpose(1, 2)
    if bias is not None:
        values = values + bias[2]
    values = values.transpose(1, 2).flatten(2)
    return attention.proj(attention.norm(values))  # type: ignore[no-any-return]
