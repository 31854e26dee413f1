"""Maps of vision transformers from their attention and its gradients."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ppl.cam.layouts import token_grid
from ppl.cam.methods.gradient import backward_passes
from ppl.cam.methods.registry import Reading
from ppl.errors import PPLValueError
from ppl.layers.shared_copy import shared_copy

if TYPE_CHECKING:
    from ppl.cam.classifier import Classifier

__all__ = ["attention_rollout"]


def attention_rollout(classifier: Classifier, x: Tensor) -> Reading:
    """Follow attention, weighted by the positive gradients of a class's logit, from the output back to each token.

    The model must be a transformer of one stream of tokens, of timm, torchvision, transformers or your own, whose
    layers call `torch.nn.functional.scaled_dot_product_attention` or are `nn.MultiheadAttention`. Every class of an
    image takes one backward pass through all blocks. The pass runs on a copy that shares the weights.

    Source:
        Generic Attention-model Explainability (Chefer et al., ICCV 2021), equations 5, 6 and 10.
    """
    twin = shared_copy(classifier, classifier.model)
    for module in twin.model.modules():
        _use_fused_attention(module)
    with torch.inference_mode(False), torch.enable_grad(), _Matrices() as found:
        logits = twin.logits(x.clone() if x.is_inference() else x)
    matrices = found.matrices
    if not matrices:
        raise _refusal(classifier, "it has no attention layers as timm's ViTs have")
    tokens = matrices[0].shape[-1]
    if any(one.ndim != 4 or one.shape[0] != len(x) or one.shape[2:] != (tokens, tokens) for one in matrices):
        raise _refusal(classifier, "its attention does not span all tokens of one stream")
    prefix = classifier.dry_run.layouts[classifier.default_layer].prefix_tokens
    grid = token_grid(tokens - prefix, (x.shape[2], x.shape[3]))
    if grid is None:
        raise _refusal(classifier, f"its {tokens} tokens are no grid over the image")
    by_class_token = prefix > 0 and getattr(classifier.backbone, "global_pool", "token") == "token"
    size = grid

    def maps(images: Tensor, classes: Tensor) -> Tensor:
        found = x.new_zeros((len(images), *size), dtype=torch.float32)
        for chosen in backward_passes(images):
            own = images[chosen]
            with torch.inference_mode(False), torch.enable_grad():
                total = logits.float()[own.clone(), classes[chosen].clone()].sum()
                gradients = torch.autograd.grad(total, matrices, retain_graph=True, allow_unused=True)
            relevance = torch.eye(tokens, device=x.device).expand(len(own), -1, -1)
            for matrix, gradient in zip(matrices, gradients, strict=True):
                if gradient is not None:
                    weighted = (matrix.detach()[own] * gradient[own]).float().relu().mean(dim=1)
                    relevance = relevance + weighted @ relevance
            rows = relevance[:, 0] if by_class_token else relevance[:, prefix:].mean(dim=1)
            found[chosen] = rows[:, prefix:].reshape(-1, *size)
        return found

    return Reading(logits.detach(), size, maps, has_scale=False)


class _Matrices(TorchFunctionMode):
    """Compute fused attention step by step in this thread, and keep the matrices (B,heads,N,N)."""

    def __init__(self) -> None:
        super().__init__()
        self.matrices: list[Tensor] = []

    def __torch_function__(
        self, func: Callable[..., Any], types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Replace one function, and pass all others on."""
        if func is not F.scaled_dot_product_attention:
            return func(*args, **(kwargs or {}))
        given = dict(zip(("query", "key", "value", "attn_mask"), args, strict=False)) | (kwargs or {})
        if given.get("is_causal") or given.get("enable_gqa"):
            return func(*args, **(kwargs or {}))
        query, key, mask, scale = given["query"], given["key"], given.get("attn_mask"), given.get("scale")
        scores = query @ key.transpose(-2, -1) * (query.shape[-1] ** -0.5 if scale is None else scale)
        if mask is not None:
            scores = scores.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else scores + mask
        matrix = scores.softmax(-1)
        if not matrix.requires_grad:  # the first one of a model whose weights are frozen
            matrix.requires_grad_()
        self.matrices.append(matrix)
        return matrix @ given["value"]


def _use_fused_attention(module: nn.Module) -> None:
    """Let an attention layer of a copy call `scaled_dot_product_attention`."""
    layer: Any = module
    config = getattr(module, "config", None)
    if hasattr(module, "fused_attn"):  # timm
        layer.fused_attn = True
    elif isinstance(module, nn.MultiheadAttention):  # torchvision
        layer.forward = partial(_self_attention, module)
    elif getattr(config, "_attn_implementation", "sdpa") != "sdpa":  # transformers
        layer.config = copy.deepcopy(config)
        layer.config._attn_implementation = "sdpa"


def _self_attention(
    layer: nn.MultiheadAttention, query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any
) -> tuple[Tensor, None]:
    """Compute the attention of tokens to each other, without masks, as `nn.MultiheadAttention` does."""
    if not (query is key is value and layer.batch_first and layer.in_proj_weight is not None and query.ndim == 3):
        raise PPLValueError(
            "method 'attention_rollout' reads nn.MultiheadAttention of tokens to each other with batch_first=True: use "
            "method='auto'"
        )
    projected = F.linear(query, layer.in_proj_weight, layer.in_proj_bias)
    q, k, v = (
        part.reshape(*part.shape[:2], layer.num_heads, -1).transpose(1, 2) for part in projected.chunk(3, dim=-1)
    )
    return layer.out_proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)), None


def _refusal(classifier: Classifier, reason: str) -> PPLValueError:
    return PPLValueError(f"method 'attention_rollout' cannot read {classifier.name!r}: {reason}; use method='auto'")
