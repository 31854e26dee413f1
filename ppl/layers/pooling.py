"""Pool class maps to the logits of an image: average, max, generalised mean, log-sum-exp, nGWP."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from ppl.errors import PPLValueError
from ppl.registry import Registry

__all__ = ["POOLINGS", "Pooling", "build_pooling", "generalised_mean", "log_sum_exp", "ngwp", "register_pooling"]

Pooling = Callable[[Tensor], Tensor]
"""A function from class maps (B,K,h,w) to logits (B,K)."""

POOLINGS: Registry[Callable[..., Tensor]] = Registry("pooling")
"""The poolings by name."""


def register_pooling(name: str, pooling: Callable[..., Tensor]) -> None:
    """Add a pooling, which models and recipes then take as `pooling=name`.

    Args:
        name: the name.
        pooling: a function from class maps (B,K,h,w) to logits (B,K). A number as its second parameter, with a
            default, can be given after a colon: `pooling="name:0.5"`.

    Raises:
        PPLValueError: if there is another pooling of that name.

    Example:
        >>> def largest(maps, share=0.25):
        ...     cells = maps.flatten(2)
        ...     return cells.topk(max(1, round(share * cells.shape[2])), dim=2).values.mean(dim=2)
        >>> register_pooling("largest", largest)
        >>> build_pooling("largest:0.5")(torch.tensor([[[[0.0, 2.0, 4.0, 6.0]]]])).item()
        5.0
    """
    POOLINGS.register(name, pooling)


def build_pooling(text: str) -> Pooling:
    """Return the pooling of a name, such as "average", or of a name and a number, such as "log_sum_exp:4".

    Args:
        text: a key of `POOLINGS`, and a number after a colon if the pooling takes one.

    Returns:
        A function from class maps (B,K,h,w) to logits (B,K).

    Raises:
        PPLValueError: for an unknown name, or for a number that the pooling does not take.

    Example:
        >>> maps = torch.tensor([[[[0.0, 2.0]]]])
        >>> build_pooling("average")(maps).item(), build_pooling("max")(maps).item()
        (1.0, 2.0)
        >>> round(build_pooling("log_sum_exp:4")(maps).item(), 2)
        1.83
    """
    name, _, number = text.partition(":")
    pooling = POOLINGS.find(name)
    if not number:
        return pooling
    parameter = next(iter(list(inspect.signature(pooling).parameters)[1:]), None)
    try:
        value = float(number)
    except ValueError:
        value = math.nan
    least = 1.0 if pooling is ngwp else 0.0
    if parameter is None or not least <= value < math.inf or value == 0:
        takes = "no number" if parameter is None else f"a {parameter} of {least:g} or more, above 0"
        raise PPLValueError(f"pooling {text!r} cannot be used: {name} takes {takes}")
    return partial(pooling, **{parameter: value})


def average(maps: Tensor) -> Tensor:
    """Return logits (B,K): the spatial mean. All cells have equal weight, so the CAM is the classifier's evidence."""
    return maps.mean(dim=(2, 3))


def maximum(maps: Tensor) -> Tensor:
    """Return logits (B,K): the largest cell, the only one per class and image that gets a gradient."""
    return maps.amax(dim=(2, 3))


def log_sum_exp(maps: Tensor, sharpness: float = 1.0) -> Tensor:
    """Return logits (B,K): a soft maximum between the mean and the largest cell (Pinheiro and Collobert, CVPR 2015).

    `log(mean(exp(sharpness * m))) / sharpness`.

    Args:
        maps: class maps (B,K,h,w).
        sharpness: above 0; near 0 the result is the mean, near infinity the maximum. The default is ours.

    Example:
        >>> log_sum_exp(torch.tensor([[[[0.0, 2.0]]]]), sharpness=50.0).item()
        1.986...
    """
    log_cells = math.log(maps.shape[2] * maps.shape[3])
    pooled = (sharpness * _precise(maps)).flatten(2).logsumexp(dim=2) - log_cells
    return (pooled / sharpness).to(maps.dtype)


def generalised_mean(maps: Tensor, power: float = 3.0) -> Tensor:
    """Return logits (B,K) whose probabilities are the generalised means of the cells' probabilities.

    With `p = sigmoid(m)`: the logit of `mean(p ** power) ** (1 / power)`. The generalised mean of features needs
    positive values, but class maps have both signs; the generalised mean of probabilities is ours.

    Args:
        maps: class maps (B,K,h,w).
        power: 1 is the mean of the probabilities, infinity the maximum.

    Example:
        >>> generalised_mean(torch.full((1, 1, 4, 4), -2.0)).item()
        -2.0...
    """
    log_cells = math.log(maps.shape[2] * maps.shape[3])
    powers = (power * F.logsigmoid(_precise(maps))).flatten(2)
    # Rounding would lose the distance of a mean from 1, so it is computed directly; other means by their largest cell.
    below_one = powers.expm1().mean(dim=2)
    far = powers.logsumexp(dim=2) - log_cells
    near = below_one.clamp(min=-0.9).log1p()  # finite where it is not used: no NaN in the gradient
    log_p = torch.where(below_one > math.expm1(-1), near, far) / power
    # A probability of 1 has no finite logit.
    log_p = log_p.clamp(max=-1e-30)
    return (log_p - torch.log(-torch.expm1(log_p))).to(maps.dtype)


def ngwp(maps: Tensor, power: float = 3.0) -> Tensor:
    """Return logits (B,K) by normalised global weighted pooling: classes and background compete for every cell.

    A cell's weight in the logit of a class is the softmax over all classes and a background whose map is 1 everywhere.
    A penalty keeps small classes from vanishing: `(1 - s) ** power * log(0.01 + s)`, where `s` is the class's share of
    the image.

    Args:
        maps: class maps (B,K,h,w).
        power: exponent of the penalty, 1 or more; the larger, the smaller the share that satisfies it.

    Source:
        Araslanov and Roth, "Single-Stage Semantic Segmentation from Image Labels", CVPR 2020, section 3.1.

    Example:
        >>> half = torch.tensor([[[[8.0, -8.0]]]])
        >>> round(ngwp(half).item(), 1)  # (1 * 8) / (1 + 1) + 0.5 ** 3 * log(0.51)
        3.9
    """
    cells = _precise(maps)
    masks = torch.cat([torch.ones_like(cells[:, :1]), cells], dim=1).softmax(dim=1)[:, 1:]
    scores = (masks * cells).sum(dim=(2, 3)) / (1 + masks.sum(dim=(2, 3)))
    share = masks.mean(dim=(2, 3)).clamp(max=1.0)
    return (scores + (1 - share) ** power * torch.log(0.01 + share)).to(maps.dtype)


def _precise(maps: Tensor) -> Tensor:
    return maps.float() if maps.dtype in (torch.float16, torch.bfloat16) else maps


for _name, _pooling in {
    "average": average,
    "max": maximum,
    "generalised_mean": generalised_mean,
    "log_sum_exp": log_sum_exp,
    "ngwp": ngwp,
}.items():
    register_pooling(_name, _pooling)
