"""Refuse NaN in weights, images and activations, by name."""

from __future__ import annotations

import threading
from typing import Any

import torch
from torch import Tensor, nn

from ppl.cam.layouts import first_tensor
from ppl.errors import PPLValueError

__all__ = ["check_weights", "find_bad_layer"]


def check_weights(model: nn.Module) -> None:
    """Raise PPLValueError if a parameter holds NaN or infinity, or a buffer holds NaN.

    Args:
        model: any module. Infinity in a buffer is allowed, since masks of attention consist of it.

    Example:
        >>> layer = nn.Linear(2, 1)
        >>> _ = layer.weight.data.fill_(float("nan"))
        >>> check_weights(layer)
        Traceback (most recent call last):
        ppl.errors.PPLValueError: 'weight' of Linear holds NaN or infinity in 2 of 2 values: ...
    """
    named = [(name, value.detach(), False) for name, value in model.named_parameters()]
    named += [(name, value.detach(), True) for name, value in model.named_buffers()]
    named = [entry for entry in named if entry[1].is_floating_point() and not entry[1].is_meta]
    with torch.no_grad():
        # One sum a tensor, and one question to the device for all of them.
        sums = [value.sum(dtype=torch.float32) for _, value, _ in named]
        if not sums or torch.stack([one.to(sums[0].device) for one in sums]).isfinite().all():
            return
        for name, value, is_buffer in named:
            bad = value.isnan() if is_buffer else ~value.isfinite()
            if bad.any():
                raise PPLValueError(
                    f"{name!r} of {type(model).__name__} holds NaN or infinity in {int(bad.sum())} of {bad.numel()} "
                    "values: load sound weights, or train again with a lower learning rate"
                )


def find_bad_layer(model: nn.Module, x: Tensor) -> str:
    """Return the name of the first layer that returns NaN or infinity for these images, or an empty string."""
    thread, found = threading.get_ident(), []

    def look(name: str) -> Any:
        def hook(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            tensor = first_tensor(output)
            if threading.get_ident() == thread and tensor is not None and not tensor.isfinite().all():
                found.append(name)

        return hook

    handles = [module.register_forward_hook(look(name)) for name, module in model.named_modules() if name]
    try:
        with torch.no_grad():
            model(x)
    finally:
        for handle in handles:
            handle.remove()
    return found[0] if found else ""
