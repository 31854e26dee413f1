"""Patch branches that are computed twice instead of kept in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ppl.backbones import CutBackbone

__all__ = ["checkpointed"]


def checkpointed(cutter: CutBackbone) -> Callable[..., Tensor]:
    """`cutter.patched` with its activations dropped after the forward pass and computed again in the backward pass.

    Random numbers are the same both times, and BatchNorm statistics move only once.

    Args:
        cutter: the cut backbone.

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

    def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), _still_statistics(cutter.model)

    return partial(checkpoint, cutter.patched, use_reentrant=False, context_fn=contexts)


@contextmanager
def _still_statistics(model: nn.Module) -> Iterator[None]:
    """BatchNorm layers compute as they did, but leave their running statistics where they are."""
    norms = [norm for norm in model.modules() if isinstance(norm, nn.modules.batchnorm._BatchNorm) and norm.training]
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
