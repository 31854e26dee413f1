"""Classification losses: logits of an image against its tags.

Each is a pure function `(logits, targets, **options) -> scalar`; another loss is another function and one line in
`LOSSES`. Losses that look at the class maps themselves are in `ppl.train.auxiliary`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from ppl.errors import PPLValueError

__all__ = ["LOSSES", "Loss", "asymmetric", "bce", "build_loss", "multilabel_soft_margin"]

Loss = Callable[[Tensor, Tensor], Tensor]
"""`loss(logits, targets)` on (B, K) tensors, returning a scalar."""


def multilabel_soft_margin(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean binary cross entropy of every class of every image: the loss of most of the field (IRN, PSA, SEAM).

    Args:
        logits: (B, K) scores before the sigmoid.
        targets: (B, K), 1 where the image has the tag, else 0.

    Returns:
        Scalar, at least 0.

    Example:
        >>> import torch
        >>> multilabel_soft_margin(torch.zeros(1, 4), torch.ones(1, 4)).item()  # log 2
        0.693...
    """
    return F.multilabel_soft_margin_loss(logits, targets)


def bce(logits: Tensor, targets: Tensor, *, label_smoothing: float = 0.1) -> Tensor:
    """Binary cross entropy against targets drawn towards one half, for tags that may be wrong or missing.

    Args:
        logits: (B, K) scores before the sigmoid.
        targets: (B, K) of 0 and 1.
        label_smoothing: 0 leaves the targets alone, 1 makes all of them one half. The default is ours.

    Returns:
        Scalar, at least 0.

    Example:
        >>> import torch
        >>> bce(torch.zeros(1, 4), torch.ones(1, 4), label_smoothing=0.2).item()
        0.693...
    """
    return F.binary_cross_entropy_with_logits(logits, targets * (1 - label_smoothing) + 0.5 * label_smoothing)


def asymmetric(
    logits: Tensor, targets: Tensor, *, gamma_pos: float = 0.0, gamma_neg: float = 4.0, clip: float = 0.05
) -> Tensor:
    """Asymmetric loss (Ridnik et al., ICCV 2021): easy absent classes are focused away and clipped.

    The defaults are the paper's; the mean over images and classes instead of the sum is ours, so that the value does
    not grow with the batch.

    Args:
        logits: (B, K) scores before the sigmoid.
        targets: (B, K) of 0 and 1.
        gamma_pos: focusing exponent of present classes.
        gamma_neg: focusing exponent of absent classes.
        clip: absent classes below this probability cost nothing.

    Returns:
        Scalar, at least 0.

    Example:
        >>> import torch
        >>> asymmetric(torch.full((1, 4), -5.0), torch.zeros(1, 4)).abs().item()
        0.0
    """
    probability = logits.sigmoid()
    absent = (probability - clip).clamp(min=0)
    # logsigmoid keeps the gradient of a present class whose probability underflows
    positive = targets * (1 - probability) ** gamma_pos * F.logsigmoid(logits)
    # 1 - absent reaches 0 only where the sigmoid saturates and nothing is clipped
    negative = (1 - targets) * absent**gamma_neg * (1 - absent).clamp(min=1e-8).log()
    return -(positive + negative).mean()


LOSSES: Mapping[str, Callable[..., Tensor]] = {
    "multilabel_soft_margin": multilabel_soft_margin,
    "bce": bce,
    "asymmetric": asymmetric,
}


def build_loss(name: str, options: Mapping[str, Any] | None = None) -> Loss:
    """A classification loss by name.

    Args:
        name: a key of `LOSSES`.
        options: keyword arguments of that loss.

    Returns:
        A function `(logits, targets) -> scalar`.

    Raises:
        PPLValueError: for an unknown name or option.

    Example:
        >>> import torch
        >>> build_loss("bce", {"label_smoothing": 0.0})(torch.zeros(1, 4), torch.ones(1, 4)).item()
        0.693...
    """
    if name not in LOSSES:
        raise PPLValueError(f"unknown loss {name!r}; choose one of {', '.join(LOSSES)}")
    return bind_options(name, LOSSES[name], options or {})


def bind_options(name: str, function: Callable[..., Tensor], options: Mapping[str, Any]) -> Callable[..., Tensor]:
    """The function with its keyword-only options filled in, refused here rather than at the first batch if unknown."""
    known = [p.name for p in inspect.signature(function).parameters.values() if p.kind is p.KEYWORD_ONLY]
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise PPLValueError(
            f"loss {name!r} has no option {', '.join(map(repr, unknown))}; it knows {', '.join(known) or 'none'}"
        )
    return partial(function, **options)
