"""What BatchNorm layers do while the rest of the model trains."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from torch import nn

from ppl.backbones.norms import batch_norms

__all__ = ["choose_batch_norm", "freeze_batch_norm_affine", "set_train_mode"]

Policy = Literal["frozen", "live"]


def choose_batch_norm(model: nn.Module, policy: Literal["auto", "frozen", "live"] = "auto") -> Policy:
    """Resolve "auto": "frozen" if the statistics were learned before, "live" if they have their initial values.

    Batches of a few crops estimate statistics worse than pretraining did, and with live statistics the result of a
    patch would depend on the other patches. A model without pretrained statistics has to learn them.

    Args:
        model: any module.
        policy: "auto" looks at the running statistics; the others are returned as they are.

    Returns:
        "frozen" or "live".

    Example:
        >>> choose_batch_norm(nn.BatchNorm2d(4))
        'live'
    """
    if policy != "auto":
        return policy
    initial = all(
        bool((norm.running_mean == 0).all()) and bool((norm.running_var == 1).all())
        for norm in batch_norms(model)
        if norm.running_mean is not None and norm.running_var is not None
    )
    return "live" if initial else "frozen"


def set_train_mode(model: nn.Module, policy: Policy, frozen: Iterable[nn.Module] = ()) -> None:
    """Call `model.train()`, but keep BatchNorm layers with frozen statistics in eval mode.

    A layer in `frozen`, or with a scale that does not train, stays in eval mode under both policies.

    Args:
        model: any module.
        policy: "frozen" keeps the statistics of all BatchNorm layers; "live" lets them follow the batches.
        frozen: modules that do not train, as `freeze_stages` returns them.

    Example:
        >>> model = nn.Sequential(nn.BatchNorm2d(4), nn.Dropout())
        >>> set_train_mode(model, "frozen")
        >>> [module.training for module in model]
        [False, True]
    """
    model.train()
    kept = set(frozen)
    for norm in batch_norms(model):
        if policy == "frozen" or norm in kept or (norm.weight is not None and not norm.weight.requires_grad):
            norm.eval()


def freeze_batch_norm_affine(model: nn.Module) -> None:
    """Set `requires_grad=False` on scale and bias of every BatchNorm layer.

    Example:
        >>> norm = nn.BatchNorm2d(4)
        >>> freeze_batch_norm_affine(norm)
        >>> norm.weight.requires_grad
        False
    """
    for norm in batch_norms(model):
        for parameter in norm.parameters(recurse=False):
            parameter.requires_grad_(False)
