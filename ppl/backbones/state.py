"""Run a model on a stand-in image without leaving a trace in it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["EvalMode", "attributes_kept", "forget_biases", "make_dummy", "untouched"]

_BIASES = "attention_bias_cache"
_TORCH_OWN = frozenset(vars(nn.Module()))


class EvalMode:
    """Put exactly these modules (not their children) in eval mode; afterwards those that trained train again.

    What they keep in eval mode alone is made anew for this pass, and forgotten after it.

    A class, since `torch.compile` follows `contextlib`'s generators in its newest versions alone.
    """

    def __init__(self, modules: Iterable[nn.Module]) -> None:
        self.training, self.caching = [], []
        for module in modules:
            if module.training:
                self.training.append(module)
            if hasattr(module, _BIASES):
                self.caching.append(module)

    def __enter__(self) -> None:
        """Switch to eval mode."""
        forget_biases(self.caching)
        for module in self.training:
            module.training = False

    def __exit__(self, *error: object) -> None:
        """Switch back, even after an exception."""
        for module in self.training:
            module.training = True
        forget_biases(self.caching)


def forget_biases(modules: Iterable[nn.Module]) -> None:
    """Empty what LeViT, TinyViT and their kin keep of their weights in eval mode.

    They empty it themselves in `train()`, `eval()` and `to()`, but not when weights are loaded.
    """
    for module in modules:
        if hasattr(module, _BIASES):
            setattr(module, _BIASES, {})


@contextmanager
def untouched(model: nn.Module) -> Iterator[None]:
    """A dry run: eval mode, no gradients; mode, random state, statistics and all attributes stay as they were."""
    devices = sorted({p.device.index or 0 for p in model.parameters() if p.device.type == "cuda"})
    # tensors of inference mode have no version counter, which tells of writes in place
    with (
        torch.random.fork_rng(devices=devices),
        EvalMode(model.modules()),
        torch.inference_mode(False),
        torch.no_grad(),
        attributes_kept(model),
    ):
        yield


@contextmanager
def attributes_kept(model: nn.Module) -> Iterator[None]:
    """Whatever happens inside, all attributes and pre-hooks are afterwards as they were.

    Some models keep what they made of an image's size: masks, positions, even the size of their windows.
    """
    before = [(module, dict(vars(module)), set(module._forward_pre_hooks)) for module in model.modules()]
    # caches are filled in place, and hooks and other modules may hold the same dictionaries
    held = [(value, dict(value)) for module, *_ in before for value in _dictionaries(module)]
    try:
        yield
    finally:
        for module, attributes, hooks in before:
            for added in set(module._forward_pre_hooks) - hooks:
                del module._forward_pre_hooks[added]
            vars(module).clear()
            vars(module).update(attributes)
        for value, content in held:
            value.clear()
            value.update(content)


def _dictionaries(module: nn.Module) -> Iterator[dict[Any, Any]]:
    """The buffers, and dictionaries that are none of torch's own."""
    yield module._buffers
    for name, value in vars(module).items():
        if type(value) is dict and name not in _TORCH_OWN:
            yield value


def make_dummy(model: nn.Module, size: tuple[int, int], batch: int = 1) -> Tensor:
    """A black image (batch,channels,H,W) with the dtype and device that the model computes with."""
    # loops, since torch.compile follows `next` with a default in its newest versions alone
    parameter, first = torch.zeros(()), 3
    for candidate in model.parameters():
        if candidate.is_floating_point():
            parameter = candidate
            break
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            first = module.in_channels
            break
    # some stems fold pixels or frequencies into channels before their first convolution
    channels = getattr(model, "in_chans", first if first <= 16 else 3)
    return torch.zeros(batch, channels, *size, dtype=parameter.dtype, device=parameter.device)
