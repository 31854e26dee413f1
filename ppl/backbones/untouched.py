"""Run a model itself, not a copy, without lasting changes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from ppl.backbones.eval_mode import EvalMode

__all__ = ["contents_kept", "untouched"]

_OF_TORCH = frozenset(vars(nn.Module()))


@contextmanager
def untouched(model: nn.Module) -> Iterator[None]:
    """Run in eval mode and without gradients; afterwards restore mode, random state, statistics and attributes.

    Some models keep what they compute from the size of an image: masks, positions, even the size of their windows. No
    other thread may use the model meanwhile; :func:`ppl.backbones.dummy.trial` runs a copy.
    """
    devices = sorted({p.device.index or 0 for p in model.parameters() if p.device.type == "cuda"})
    before = [(module, dict(vars(module)), set(module._forward_pre_hooks)) for module in model.modules()]
    # Tensors of inference mode have no version counter, by which writes in place are found.
    with (
        torch.random.fork_rng(devices=devices),
        EvalMode(model.modules()),
        torch.inference_mode(False),
        torch.no_grad(),
        contents_kept(model),
    ):
        try:
            yield
        finally:
            for module, attributes, hooks in before:
                for added in set(module._forward_pre_hooks) - hooks:
                    del module._forward_pre_hooks[added]
                training = module.training
                vars(module).clear()
                vars(module).update(attributes, training=training)


@contextmanager
def contents_kept(model: nn.Module) -> Iterator[None]:
    """Restore the contents of the dictionaries of a model: caches are filled in place, also by hooks."""
    held = [(value, dict(value)) for module in model.modules() for value in _dictionaries(module)]
    try:
        yield
    finally:
        for value, content in held:
            if value.keys() != content.keys() or any(value[key] is not content[key] for key in content):
                value.clear()
                value.update(content)


def _dictionaries(module: nn.Module) -> Iterator[dict[Any, Any]]:
    """Yield the buffers, and all dictionaries that are not torch's own."""
    yield module._buffers
    for name, value in vars(module).items():
        if type(value) is dict and name not in _OF_TORCH:
            yield value
