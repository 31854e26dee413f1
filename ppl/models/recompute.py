"""Compute patch branches a second time in the backward pass instead of keeping their activations."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ppl.backbones import CutBackbone
from ppl.backbones.norms import batch_norms
from ppl.backbones.patches import tensors_of

__all__ = ["checkpointed"]


def checkpointed(cutter: CutBackbone) -> Callable[..., Tensor]:
    """Return `cutter.patched` with activations that are dropped after the forward pass and recomputed for the backward.

    If no BatchNorm statistics are updated, the batch is processed in two halves, so half a branch is in memory at a
    time. Random numbers are the same in both passes, and statistics are updated once.

    Returns:
        A function with the arguments and the result of `cutter.patched`.

    Example:
        >>> import timm, torch
        >>> cutter = CutBackbone(timm.create_model("test_resnet").eval(), cuts=["layer2"])
        >>> whole, features = cutter.forward_features(torch.zeros(1, 3, 64, 64), taps=[0])
        >>> arguments = (0, features[0], 2, whole.shape[-2:])
        >>> torch.equal(checkpointed(cutter)(*arguments), cutter.patched(*arguments))
        True
    """
    return partial(_recomputed, cutter)


# The compiler cannot trace a checkpoint with contexts: a compiled graph breaks here.
@torch.compiler.disable  # type: ignore[untyped-decorator]
def _recomputed(cutter: CutBackbone, cut_index: int, features: Any, *where: Any) -> Tensor:
    def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), _still_statistics(cutter.model)

    run = partial(checkpoint, cutter.patched, use_reentrant=False, context_fn=contexts)
    live = any(norm.training for norm in batch_norms(cutter.model))
    halves = [features] if live else _halves(features)  # Statistics of half a batch would differ.
    return torch.cat([run(cut_index, half, *where) for half in halves])


def _halves(features: Any) -> list[Any]:
    """Return the two halves of a batch of features (a tensor or a list), or the batch if it is a single image."""
    images = len(tensors_of(features)[-1])
    first = images - images // 2
    return [_images(features, images, *part) for part in ((0, first), (first, images)) if part[0] < part[1]]


def _images(features: Any, images: int, start: int, stop: int) -> Any:
    """Return the features of the images `start` to `stop`; a tensor may have several rows per image."""
    if isinstance(features, Tensor):
        rows = len(features) // images
        return features[start * rows : stop * rows]
    return type(features)(_images(member, images, start, stop) for member in features)


@contextmanager
def _still_statistics(model: nn.Module) -> Iterator[None]:
    """Let BatchNorm layers compute as before, but not update their running statistics."""
    norms = [norm for norm in batch_norms(model) if norm.training]
    kept = [(norm, norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
        norm.num_batches_tracked = None
    try:
        yield
    finally:
        for norm, momentum, count in kept:
            norm.momentum = momentum
            norm.num_batches_tracked = count
