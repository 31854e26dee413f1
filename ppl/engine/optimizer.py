"""Optimizers, their parameter groups, and the learning rate of every step."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

import torch
from torch import nn

from ppl.errors import PPLValueError

__all__ = ["build_optimizer", "param_groups", "poly_schedule"]


def param_groups(
    backbone: Iterable[tuple[str, nn.Parameter]],
    head: Iterable[tuple[str, nn.Parameter]],
    *,
    lr: float,
    weight_decay: float,
    head_lr_mult: float = 10.0,
    bias_lr_mult: float = 1.0,
    decay_norm_and_bias: bool = False,
) -> list[dict[str, Any]]:
    """Group parameters by learning rate and weight decay; parameters that do not train are left out.

    `bias_lr_mult=2` with `decay_norm_and_bias=False` gives the four groups of the Caffe tradition (PSA, SEAM,
    Puzzle-CAM): weights 1x, biases 2x without decay, new weights 10x, new biases 20x without decay.

    Args:
        backbone: `(name, parameter)` pairs of the pretrained part.
        head: `(name, parameter)` pairs of the new part.
        lr: learning rate of the backbone's weights.
        weight_decay: decay of the weights.
        head_lr_mult: factor of the head's learning rate.
        bias_lr_mult: factor of the biases' learning rate.
        decay_norm_and_bias: also decay parameters with one dimension: biases and the scales of norms.

    Returns:
        Groups for an optimizer, each with a `name`, its `lr` and its `weight_decay`.

    Raises:
        PPLValueError: if no parameter trains.

    Example:
        >>> from torch import nn
        >>> groups = param_groups(nn.Linear(4, 4).named_parameters(), nn.Linear(4, 2).named_parameters(),
        ...                       lr=0.1, weight_decay=1e-4, bias_lr_mult=2)
        >>> [(group["name"], group["lr"], group["weight_decay"]) for group in groups]
        [('backbone.weight', 0.1, 0.0001), ('backbone.bias', 0.2, 0.0),
         ('head.weight', 1.0, 0.0001), ('head.bias', 2.0, 0.0)]
    """
    groups: dict[str, dict[str, Any]] = {}
    for part, named, part_mult in (("backbone", backbone, 1.0), ("head", head, head_lr_mult)):
        for name, parameter in named:
            if not parameter.requires_grad:
                continue
            kind = "weight" if parameter.ndim > 1 else "bias" if name.endswith("bias") else "norm"
            rate = lr * part_mult * (bias_lr_mult if kind == "bias" else 1.0)
            decay = weight_decay if kind == "weight" or decay_norm_and_bias else 0.0
            group = {"name": f"{part}.{kind}", "params": [], "lr": rate, "weight_decay": decay}
            groups.setdefault(f"{part}.{kind}", group)["params"].append(parameter)
    if not groups:
        raise PPLValueError("nothing to train: every parameter is frozen; set requires_grad=True on some")
    return list(groups.values())


def build_optimizer(
    name: Literal["adamw", "sgd"],
    groups: list[dict[str, Any]],
    *,
    momentum: float = 0.9,
    nesterov: bool = False,
    betas: tuple[float, float] = (0.9, 0.999),
) -> torch.optim.Optimizer:
    """Build AdamW or SGD over parameter groups that carry their own learning rate and decay.

    The poly optimizer of the field passes the weight decay where SGD takes the momentum, so its published recipes
    (learning rate 0.1) ran with next to no momentum. To repeat one of them, set `momentum=1e-4`.

    Returns:
        The optimizer.

    Raises:
        PPLValueError: for an unknown name.

    Example:
        >>> from torch import nn
        >>> head = nn.Linear(4, 2)
        >>> groups = param_groups([], head.named_parameters(), lr=0.01, weight_decay=0.0)
        >>> build_optimizer("sgd", groups, momentum=0.5).param_groups[0]["momentum"]
        0.5
    """
    if name == "adamw":
        return torch.optim.AdamW(groups, betas=betas)
    if name == "sgd":
        return torch.optim.SGD(groups, lr=groups[0]["lr"], momentum=momentum, nesterov=nesterov)
    raise PPLValueError(f"unknown optimizer {name!r}; choose adamw or sgd")


def poly_schedule(optimizer: torch.optim.Optimizer, total: int, *, power: float = 0.9, warmup: int = 0) -> Any:
    """Build timm's poly schedule: every group's own rate times `(1 - step / total) ** power`.

    Args:
        optimizer: the optimizer, with the first learning rates.
        total: the number of steps of the whole run.
        power: the exponent; 0.9 in most of the field.
        warmup: the number of first steps, during which the rates climb linearly from 0.

    Returns:
        A `timm.scheduler.PolyLRScheduler`; `step_update(step)` sets the rates of a step, so a resumed run needs no
        state of it.

    Example:
        >>> from torch import nn
        >>> optimizer = torch.optim.SGD(nn.Linear(4, 2).parameters(), lr=0.1)
        >>> schedule = poly_schedule(optimizer, total=4)
        >>> for step in range(4):
        ...     schedule.step_update(step)
        ...     print(round(optimizer.param_groups[0]["lr"], 4))
        0.1
        0.0772
        0.0536
        0.0287
    """
    from timm.scheduler import PolyLRScheduler

    # timm warns of a single step; two steps have the same first rate
    return PolyLRScheduler(optimizer, max(total, 2), power=power, warmup_t=warmup, t_in_epochs=False)
