"""What BatchNorm layers do while the rest of the model trains."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Literal

from torch import nn

__all__ = ["choose_batch_norm", "freeze_batch_norm_affine", "set_train_mode"]

Policy = Literal["frozen", "live"]


def _batch_norms(model: nn.Module) -> Iterator[nn.modules.batchnorm._BatchNorm]:
    return (module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm))


def choose_batch_norm(model: nn.Module, policy: Literal["auto", "frozen", "live"] = "auto") -> Policy:
    """Settle "auto": frozen if the statistics have been learnt before, live if they are as they were made.

    Batches of a few crops estimate statistics worse than pretraining did, and with live statistics a patch's result
    would depend on the other patches; from scratch there is nothing yet to keep.

    Args:
        model: any module.
        policy: "auto" looks at the running statistics, the others are returned as they are.

    Returns:
        "frozen" or "live".

    Example:
        >>> choose_batch_norm(nn.BatchNorm2d(4))
        'live'
    """
    if policy != "auto":
        return policy
    untouched = all(
        bool((norm.running_mean == 0).all()) and bool((norm.running_var == 1).all())
        for norm in _batch_norms(model)
        if norm.running_mean is not None and norm.running_var is not None
    )
    return "live" if untouched else "frozen"


def set_train_mode(model: nn.Module, policy: Policy, frozen: Iterable[nn.Module] = ()) -> None:
    """`model.train()`, with BatchNorm layers in eval mode if they are frozen.

    Those of frozen stages stay in eval mode under either policy, and so does one whose scale is taken out of training.

    Args:
        model: any module.
        policy: "frozen" for all BatchNorm layers, or "live".
        frozen: modules that are frozen under either policy, as `freeze_stages` returns them.

    Example:
        >>> model = nn.Sequential(nn.BatchNorm2d(4), nn.Dropout())
        >>> set_train_mode(model, "frozen")
        >>> [module.training for module in model]
        [False, True]
    """
    model.train()
    kept = set(frozen)
    for norm in _batch_norms(model):
        if policy == "frozen" or norm in kept or (norm.weight is not None and not norm.weight.requires_grad):
            norm.eval()


def freeze_batch_norm_affine(model: nn.Module) -> None:
    """Take scale and bias of every BatchNorm layer out of training.

    Example:
        >>> norm = nn.BatchNorm2d(4)
        >>> freeze_batch_norm_affine(norm)
        >>> norm.weight.requires_grad
        False
    """
    for norm in _batch_norms(model):
        for parameter in norm.parameters(recurse=False):
            parameter.requires_grad_(False)
