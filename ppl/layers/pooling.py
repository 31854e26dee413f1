"""From class maps to the score of an image: average, max, generalised mean, log-sum-exp, nGWP."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from ppl.errors import PPLValueError

__all__ = ["POOLINGS", "Pooling", "build_pooling", "generalised_mean", "log_sum_exp", "ngwp"]

Pooling = Callable[[Tensor], Tensor]
"""From class maps (B,K,h,w) to logits (B,K)."""


def average(maps: Tensor) -> Tensor:
    """Logits (B,K): the spatial mean. Every cell has the same say, and the CAM is the classifier's own evidence."""
    return maps.mean(dim=(2, 3))


def maximum(maps: Tensor) -> Tensor:
    """Logits (B,K): the largest cell. Only one cell per class and image learns."""
    return maps.amax(dim=(2, 3))


def log_sum_exp(maps: Tensor, sharpness: float = 1.0) -> Tensor:
    """Logits (B,K): a soft maximum between the mean and the largest cell (Pinheiro and Collobert, CVPR 2015).

    `log(mean(exp(sharpness * m))) / sharpness`.

    Args:
        maps: class maps (B,K,h,w).
        sharpness: above 0; towards 0 it is the mean, towards infinity the maximum. The default is ours.

    Example:
        >>> log_sum_exp(torch.tensor([[[[0.0, 2.0]]]]), sharpness=50.0).item()
        1.986...
    """
    log_cells = math.log(maps.shape[2] * maps.shape[3])
    pooled = (sharpness * _precise(maps)).flatten(2).logsumexp(dim=2) - log_cells
    return (pooled / sharpness).to(maps.dtype)


def generalised_mean(maps: Tensor, power: float = 3.0) -> Tensor:
    """Logits (B,K) whose probability is the generalised mean of the cells' probabilities.

    With `p = sigmoid(m)`: the logit of `mean(p ** power) ** (1 / power)`. Class maps have both signs, which the
    generalised mean of features does not take; that of probabilities is ours.

    Args:
        maps: class maps (B,K,h,w).
        power: 1 is the mean of the probabilities, infinity the maximum.

    Example:
        >>> generalised_mean(torch.full((1, 1, 4, 4), -2.0)).item()
        -2.0...
    """
    log_cells = math.log(maps.shape[2] * maps.shape[3])
    powers = (power * F.logsigmoid(_precise(maps))).flatten(2)
    # a mean near 1 as its distance from 1, which rounding would swallow; the others through their largest cell
    below_one = powers.expm1().mean(dim=2)
    far = powers.logsumexp(dim=2) - log_cells
    near = below_one.clamp(min=-0.9).log1p()  # finite where it is not taken too: no NaN enters the gradient
    log_p = torch.where(below_one > math.expm1(-1), near, far) / power
    # a probability of 1 has no logit
    log_p = log_p.clamp(max=-1e-30)
    return (log_p - torch.log(-torch.expm1(log_p))).to(maps.dtype)


def ngwp(maps: Tensor, power: float = 3.0) -> Tensor:
    """Logits (B,K): normalised global weighted pooling, in which classes and background compete for every cell.

    A cell has a say in a class's logit as far as the class wins it from the others and from a background whose map is
    1 everywhere. What a class wins all in all keeps it from vanishing: `(1 - s) ** power * log(0.01 + s)` is added,
    with `s` its share of the image.

    Args:
        maps: class maps (B,K,h,w).
        power: from 1 upwards, of that penalty; the larger, the smaller a share satisfies it.

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


POOLINGS: Mapping[str, Callable[..., Tensor]] = {
    "average": average,
    "max": maximum,
    "generalised_mean": generalised_mean,
    "log_sum_exp": log_sum_exp,
    "ngwp": ngwp,
}


_NUMBERS = {"generalised_mean": "power", "log_sum_exp": "sharpness", "ngwp": "power"}


def build_pooling(text: str) -> Pooling:
    """A pooling by name, with its number after a colon if it takes one.

    Args:
        text: a key of `POOLINGS`, such as "average" or "log_sum_exp:4".

    Returns:
        A function from class maps (B,K,h,w) to logits (B,K).

    Raises:
        PPLValueError: for an unknown name, or a number that is none, not above 0, or not taken.

    Example:
        >>> maps = torch.tensor([[[[0.0, 2.0]]]])
        >>> build_pooling("average")(maps).item(), build_pooling("max")(maps).item()
        (1.0, 2.0)
        >>> round(build_pooling("log_sum_exp:4")(maps).item(), 2)
        1.83
    """
    name, _, number = text.partition(":")
    if name not in POOLINGS:
        raise PPLValueError(f"unknown pooling {text!r}; choose one of {', '.join(POOLINGS)}")
    if not number:
        return POOLINGS[name]
    try:
        value = float(number)
    except ValueError:
        value = 0.0
    if name not in _NUMBERS or not 0 < value < float("inf") or (name == "ngwp" and value < 1):
        raise PPLValueError(
            f'pooling {text!r} is not understood; write "generalised_mean:3", "log_sum_exp:4" or "ngwp:3" (1 or more)'
        )
    return partial(POOLINGS[name], **{_NUMBERS[name]: value})
