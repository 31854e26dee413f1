"""Classification losses: logits of an image against its tags.

Each is a pure function `(logits, targets, *, options) -> scalar`; another loss is another function and one line in
`LOSSES`. Options are checked against their type hints. Losses that look at the class maps themselves are in
`ppl.train.auxiliary`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Annotated, Any

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from ppl.errors import PPLValueError
from ppl.parameters import check_parameters, known_parameters

__all__ = ["LOSSES", "Loss", "asymmetric", "bce", "build_loss", "multilabel_soft_margin"]

Loss = Callable[[Tensor, Tensor], Tensor]
"""`loss(logits, targets)` on (B, K) tensors, returning a scalar."""

Gamma = Annotated[float, Field(ge=0, allow_inf_nan=False)]


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


def bce(logits: Tensor, targets: Tensor, *, label_smoothing: Annotated[float, Field(ge=0, le=1)] = 0.1) -> Tensor:
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
    logits: Tensor,
    targets: Tensor,
    *,
    gamma_pos: Gamma = 0.0,
    gamma_neg: Gamma = 4.0,
    clip: Annotated[float, Field(ge=0, lt=1)] = 0.05,
) -> Tensor:
    """Asymmetric loss (Ridnik et al., ICCV 2021): easy absent classes are focused away and clipped.

    The defaults are the paper's; the mean over images and classes instead of the sum is ours, so that the value does
    not grow with the batch.

    Args:
        logits: (B, K) scores before the sigmoid.
        targets: (B, K) of 0 and 1.
        gamma_pos: focusing exponent of present classes, 0 or more.
        gamma_neg: focusing exponent of absent classes, 0 or more.
        clip: absent classes below this probability cost nothing; in [0, 1).

    Returns:
        Scalar, at least 0.

    Example:
        >>> import torch
        >>> asymmetric(torch.full((1, 4), -5.0), torch.zeros(1, 4)).abs().item()
        0.0
    """
    # a power below 1 has an infinite slope at 0, which would turn a slope of 0 into NaN
    tiny = torch.finfo(logits.dtype).tiny
    missing = (-logits).sigmoid().clamp(min=tiny)
    absent = (logits.sigmoid() - clip).clamp(min=tiny)
    # logsigmoid keeps the gradient of a present class whose probability underflows
    positive = targets * missing**gamma_pos * F.logsigmoid(logits)
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
        PPLValueError: for an unknown name or option, or an option out of range.

    Example:
        >>> import torch
        >>> build_loss("bce", {"label_smoothing": 0.0})(torch.zeros(1, 4), torch.ones(1, 4)).item()
        0.693...
    """
    if name not in LOSSES:
        raise PPLValueError(f"unknown loss {name!r}; choose one of {', '.join(LOSSES)}")
    return bind_options(name, LOSSES[name], options or {})


def bind_options(name: str, function: Callable[..., Tensor], options: Mapping[str, Any]) -> Callable[..., Tensor]:
    """The function with its keyword-only options filled in, checked here rather than at the first batch."""
    known = known_parameters(function)
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise PPLValueError(
            f"loss {name!r} has no option {', '.join(map(repr, unknown))}; it knows {', '.join(known) or 'none'}"
        )
    return partial(function, **check_parameters(function, **options))
