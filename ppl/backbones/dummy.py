"""The dummy image on which a backbone runs up to a cut, and trial runs on it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from ppl.layers.shared_copy import shared_copy

__all__ = ["call_backbone", "has_forward_features", "make_dummy", "trial"]

T = TypeVar("T")


def has_forward_features(model: nn.Module) -> bool:
    """Tell whether the model can compute its final map without a head, as timm's models can."""
    return callable(getattr(model, "forward_features", None))


def call_backbone(model: nn.Module, x: Tensor) -> Any:
    """Run the model up to its final map, or the whole of a model without `forward_features`."""
    if has_forward_features(model):
        return model.forward_features(x)  # type: ignore[operator]
    return model(x)


def make_dummy(model: nn.Module, size: tuple[int, int], batch: int = 1) -> Tensor:
    """Return a black image (batch,channels,H,W) of the dtype and device of the model's weights."""
    # Loops instead of `next(..., default)`, which only the newest versions of torch.compile follow.
    parameter, first = torch.zeros(()), 3
    for candidate in model.parameters():
        if candidate.is_floating_point():
            parameter = candidate
            break
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            first = module.in_channels
            break
    # Some stems fold pixels or frequencies into channels before their first convolution.
    channels = getattr(model, "in_chans", first if first <= 16 else 3)
    return torch.zeros(batch, channels, *size, dtype=parameter.dtype, device=parameter.device)


_OF_TORCH = frozenset(vars(nn.Module()))


@contextmanager
def trial(thing: T, model: nn.Module | None = None) -> Iterator[T]:
    """Open a trial run: yield a copy in eval mode that shares all tensors; no gradients, random state restored.

    Args:
        thing: a module, or an object that holds one.
        model: the module in it; `thing` itself by default.
    """
    module: Any = thing if model is None else model
    devices = sorted({p.device.index or 0 for p in module.parameters() if p.device.type == "cuda"})
    # Tensors of inference mode have no version counter, by which writes in place are found.
    with (
        torch.random.fork_rng(devices=devices),
        torch.inference_mode(False),
        torch.no_grad(),
        _contents_kept(module),  # Hooks of the caller may fill them.
    ):
        yield shared_copy(thing, module)


@contextmanager
def _contents_kept(model: nn.Module) -> Iterator[None]:
    """Restore the contents of the dictionaries that modules of a model hold, torch's own excepted."""
    values = (value for part in model.modules() for name, value in vars(part).items() if name not in _OF_TORCH)
    before = [(value, dict(value)) for value in values if type(value) is dict]
    try:
        yield
    finally:
        for value, content in before:
            if value.keys() != content.keys() or any(value[key] is not content[key] for key in content):
                value.clear()
                value.update(content)
