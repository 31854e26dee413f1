"""Maps of vision transformers from their attention and its gradients."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ppl.cam.capture import captured_output, graph_from, only_output
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

    The model must be a transformer of one stream of tokens with attention layers as in timm's ViTs. Every class of an
    image takes one backward pass through all blocks. The pass runs on a copy that shares the weights, since fused
    attention does not show its matrices.

    Source:
        Generic Attention-model Explainability (Chefer et al., ICCV 2021), equations 5, 6 and 10.
    """
    twin = shared_copy(classifier, classifier.model)
    layers = _attention_layers(twin)
    with ExitStack() as stack:
        outputs = [stack.enter_context(captured_output(layer)) for layer in layers[1:]]
        roots = stack.enter_context(graph_from(layers[0]))
        logits = twin.logits(x.clone() if x.is_inference() else x)
    matrices = [only_output(found, "attn_drop") for found in (roots, *outputs)]
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


def _attention_layers(twin: Classifier) -> list[nn.Module]:
    """Switch fused attention off in a copy, and return its layers whose outputs are the attention matrices."""
    layers: list[nn.Module] = []
    for module in twin.model.modules():
        attention: Any = module
        if hasattr(module, "fused_attn") and isinstance(getattr(module, "attn_drop", None), nn.Module):
            attention.fused_attn = False
            layers.append(attention.attn_drop)
    if not layers:
        raise _refusal(twin, "it has no attention layers as timm's ViTs have")
    return layers


def _refusal(classifier: Classifier, reason: str) -> PPLValueError:
    return PPLValueError(f"method 'attention_rollout' cannot read {classifier.name!r}: {reason}; use method='auto'")
