"""Run a model on a stand-in image without leaving a trace in it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

__all__ = ["EvalMode", "make_dummy", "untouched"]


class EvalMode:
    """Put exactly these modules (not their children) in eval mode; afterwards those that trained train again.

    A class, since `torch.compile` follows `contextlib`'s generators in its newest versions alone.
    """

    def __init__(self, modules: Iterable[nn.Module]) -> None:
        self.training = [module for module in modules if module.training]

    def __enter__(self) -> None:
        """Switch to eval mode."""
        for module in self.training:
            module.training = False

    def __exit__(self, *error: object) -> None:
        """Switch back, even after an exception."""
        for module in self.training:
            module.training = True


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
        _attributes_kept(model),
    ):
        yield


@contextmanager
def _attributes_kept(model: nn.Module) -> Iterator[None]:
    """Some models keep what they made of an image's size: masks, positions, even the size of their windows."""
    before = [(module, dict(vars(module)), dict(module._buffers)) for module in model.modules()]
    try:
        yield
    finally:
        for module, attributes, buffers in before:
            vars(module).clear()
            vars(module).update(attributes)
            module._buffers.clear()
            module._buffers.update(buffers)


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
