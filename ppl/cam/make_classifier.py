"""Find out how maps are read off a model."""

from __future__ import annotations

from typing import Any, Literal

from torch import nn

from ppl.cam.classifier import Classifier
from ppl.cam.net_classifier import NetClassifier
from ppl.errors import PPLTypeError

__all__ = ["make_classifier", "unwrapped"]


def make_classifier(
    model: nn.Module, *, branch: Literal["unpatched", "all"] = "unpatched", layer: str | nn.Module | None = None
) -> Classifier:
    """Find out how maps are read off a model.

    Args:
        model: a `PPLNet`, or any module that returns logits (B,K); compiled, `DataParallel` and
            `DistributedDataParallel` modules are unwrapped.
        branch: which maps of a `PPLNet`; other models have no branches.
        layer: layer that gradient methods read, by name or as a module; None is the default of the method.

    Returns:
        The classifier.

    Raises:
        PPLTypeError: if it is no module, or returns no logits.
        PPLValueError: if there is no such layer, or the model fails on images of every size that is tried.
    """
    model = unwrapped(model)
    kind = NetClassifier if hasattr(model, "class_maps") else Classifier
    return kind(model, branch, layer)


def unwrapped(model: Any) -> nn.Module:
    """Return the module inside of `torch.compile` and of parallel wrappers.

    Raises:
        PPLTypeError: if it is no module.
    """
    while True:
        if hasattr(model, "_orig_mod"):
            model = model._orig_mod
        elif isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
            model = model.module
        elif isinstance(model, nn.Module):
            return model
        else:
            raise PPLTypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
