"""Turn a trained classifier into a `PPLNet` that gives the same logits."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ppl.backbones import UnsupportedBackboneError
from ppl.backbones.dummy import make_dummy, trial
from ppl.backbones.image_sizes import native_size
from ppl.errors import PPLTypeError

__all__ = ["from_classifier"]

_TOLERANCE = 1e-4


def from_classifier(build: Callable[..., Any], model: nn.Module, settings: Mapping[str, Any]) -> Any:
    """Build a `PPLNet` from a trained classifier; see :meth:`ppl.PPLNet.from_classifier`.

    Args:
        build: makes the model of a backbone and the number of classes: `PPLNet` or a subclass.
        model: the classifier; it is copied.
        settings: further arguments of `build`.

    Returns:
        The model.

    Raises:
        PPLTypeError: if `model` is no module, or has no linear layer or 1x1 convolution.
        UnsupportedBackboneError: if the head is of another kind, or the backbone cannot be cut.
    """
    name, head = _linear_head(model)
    weight: Tensor = head.weight.detach().flatten(1)
    backbone = copy.deepcopy(model)
    parent, _, attribute = name.rpartition(".")
    setattr(backbone.get_submodule(parent), attribute, nn.Identity())
    net = build(backbone, len(weight), **{"pooling": "average", "bias": head.bias is not None, **settings})
    kind = f"{type(model).__name__} (head {name!r}, {type(head).__name__})"
    if net.fusion.in_channels[-1] != weight.shape[1]:
        raise UnsupportedBackboneError(
            f"{kind} classifies {weight.shape[1]} features, but the final map has {net.fusion.in_channels[-1]} "
            "channels, so other layers stand between map and head: build the model with PPLNet and train its head"
        )
    classifiers: Any = net.fusion.classifiers
    with torch.no_grad():
        for classifier in classifiers:
            classifier.weight.zero_()
        classifiers[-1].weight.copy_(weight[:, :, None, None])
        if net.fusion.bias is not None:
            net.fusion.bias.copy_(head.bias)
    difference = _difference(model, net)
    if not difference <= _TOLERANCE:
        raise UnsupportedBackboneError(
            f"{kind} is more than average pooling and one linear layer (logits differ by {difference:.1e}): "
            "build the model with PPLNet and train its head"
        )
    return net.train(model.training)


def _linear_head(model: nn.Module) -> tuple[str, Any]:
    """Return the last linear layer or 1x1 convolution of a classifier, and its name."""
    if not isinstance(model, nn.Module):
        raise PPLTypeError(f"model must be a torch.nn.Module, got {type(model).__name__}: create the classifier first")
    found = [
        (name, module)
        for name, module in model.named_modules()
        if name and (isinstance(module, nn.Linear) or (isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1)))
    ]
    if not found:
        raise PPLTypeError(
            f"{type(model).__name__} has no linear layer or 1x1 convolution as a head: pass a classifier"
        )
    return found[-1]


def _difference(model: nn.Module, net: nn.Module) -> float:
    """Return the largest difference between the logits of two models on noise, relative to the largest logit."""
    with trial(model) as old, trial(net) as new:
        x = torch.randn_like(make_dummy(old, native_size(old), 2))
        expected, found = old(x), new(x)
    if not isinstance(expected, Tensor) or expected.shape != found.shape:
        return float("inf")
    return float((found - expected).abs().max() / expected.abs().max().clamp(min=1e-6))
