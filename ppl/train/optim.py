"""Optimisers, their parameter groups and the learning rate of every step."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

import torch
from torch import nn

from ppl.errors import PPLValueError

__all__ = ["build_optimizer", "param_groups", "poly", "set_lr"]


def poly(step: int, total: int, *, power: float = 0.9, warmup: int = 0) -> float:
    """Factor of the learning rate at a step: `(1 - step / total) ** power`, after a linear warm-up.

    Args:
        step: optimiser step, from 0.
        total: steps of the whole run.
        power: 0.9 in the whole field.
        warmup: steps over which the factor climbs to the poly curve.

    Returns:
        A factor between 0 and 1.

    Example:
        >>> [round(poly(step, 4), 3) for step in range(4)]
        [1.0, 0.772, 0.536, 0.287]
    """
    left = max(0.0, 1 - step / max(total, 1))
    return float(left**power * min(1.0, (step + 1) / (warmup + 1)))


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
    """Parameters by learning rate and weight decay, frozen ones left out.

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
        Groups for an optimiser, each with a `name` and the `base_lr` that `set_lr` scales.

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
            base = lr * part_mult * (bias_lr_mult if kind == "bias" else 1.0)
            decay = weight_decay if kind == "weight" or decay_norm_and_bias else 0.0
            group = {"name": f"{part}.{kind}", "params": [], "lr": base, "base_lr": base, "weight_decay": decay}
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
    """AdamW or SGD over parameter groups that carry their own learning rate and decay.

    Every argument is passed by name. The field's poly optimiser passes the weight decay where SGD takes the momentum,
    so its published recipes (learning rate 0.1) ran with next to no momentum: to repeat one, say `momentum=1e-4`.

    Args:
        name: "adamw" or "sgd".
        groups: as `param_groups` makes them.
        momentum: of SGD.
        nesterov: Nesterov's momentum, of SGD.
        betas: of AdamW.

    Returns:
        The optimiser.

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


def set_lr(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Set every group's learning rate to `factor` times its own base: no scheduler state to save or to lose.

    Example:
        >>> from torch import nn
        >>> groups = param_groups([], nn.Linear(4, 2).named_parameters(), lr=0.1, weight_decay=0.0)
        >>> optimizer = build_optimizer("adamw", groups)
        >>> set_lr(optimizer, 0.5)
        >>> optimizer.param_groups[0]["lr"]
        0.5
    """
    for group in optimizer.param_groups:
        group["lr"] = factor * group["base_lr"]
