"""Classification losses: the logits of images against their tags.

Each loss is a pure function `(logits, targets, *, options) -> scalar`. Its options are checked against its type hints.
Losses on the class maps themselves are in `ppl.train.auxiliary`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Annotated, Any

import torch.nn.functional as F
from pydantic import AfterValidator, Field
from torch import Tensor

from ppl.errors import PPLValueError
from ppl.parameters import check_parameters, known_parameters
from ppl.registry import Registry

__all__ = ["LOSSES", "Loss", "asymmetric", "bce", "build_loss", "multilabel_soft_margin", "register_loss"]

Loss = Callable[[Tensor, Tensor], Tensor]
"""`loss(logits, targets)` on (B, K) tensors, returning a scalar."""


def _zero_or_at_least_one(value: float) -> float:
    if 0 < value < 1:
        raise ValueError("must be 0, or 1 and more: the gradient of a power between is infinite at 0")
    return value


Gamma = Annotated[float, Field(ge=0, allow_inf_nan=False), AfterValidator(_zero_or_at_least_one)]

LOSSES: Registry[Callable[..., Tensor]] = Registry("loss")
"""The classification losses by name."""


def register_loss(name: str, loss: Callable[..., Tensor]) -> None:
    """Add a classification loss for `TrainConfig.loss` and for recipes.

    Args:
        name: the name of the loss.
        loss: a function `(logits, targets, *, options) -> scalar` on (B, K) tensors. Options are keyword-only, and
            their values are checked against the type hints.

    Raises:
        PPLValueError: if there is another loss of that name.

    Example:
        >>> def hinge(logits: Tensor, targets: Tensor, *, margin: float = 1.0) -> Tensor:
        ...     return F.relu(margin - (2 * targets - 1) * logits).mean()
        >>> from ppl.train import TrainConfig, register_loss
        >>> register_loss("hinge", hinge)
        >>> TrainConfig(loss="hinge", loss_options={"margin": 0.5}).loss
        'hinge'
    """
    LOSSES.register(name, loss)


def multilabel_soft_margin(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the mean binary cross-entropy of all classes of all images, the loss of most of the field (IRN, SEAM).

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
    """Return the binary cross-entropy with smoothed targets, for tags that may be wrong or missing.

    Args:
        logits: (B, K) scores before the sigmoid.
        targets: (B, K) of 0 and 1.
        label_smoothing: 0 leaves the targets as they are, 1 makes all of them one half. The default is ours.

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
    """Return timm's asymmetric loss (Ridnik et al., ICCV 2021), which focuses on present and on hard absent classes.

    The default options are the paper's. The mean over images and classes, in place of the paper's sum, is ours: the
    value does not grow with the batch.

    Args:
        logits: (B, K) scores before the sigmoid.
        targets: (B, K) of 0 and 1.
        gamma_pos: focusing exponent of present classes, 0 or at least 1.
        gamma_neg: focusing exponent of absent classes, 0 or at least 1.
        clip: absent classes below this probability cost nothing; in [0, 1).

    Returns:
        Scalar float32, at least 0.

    Example:
        >>> import torch
        >>> asymmetric(torch.full((1, 4), -5.0), torch.zeros(1, 4)).abs().item()
        0.0
    """
    from timm.loss import AsymmetricLossMultiLabel

    loss = AsymmetricLossMultiLabel(gamma_neg=gamma_neg, gamma_pos=gamma_pos, clip=clip)
    # older versions of timm sum over images, newer ones average: one row of all scores is the same to both
    total: Tensor = loss(logits.float().reshape(1, -1), targets.reshape(1, -1))
    return total / logits.numel()


register_loss("multilabel_soft_margin", multilabel_soft_margin)
register_loss("bce", bce)
register_loss("asymmetric", asymmetric)


def build_loss(name: str, options: Mapping[str, Any] | None = None) -> Loss:
    """Return a classification loss by name.

    Returns:
        A function `(logits, targets) -> scalar`.

    Raises:
        PPLValueError: for an unknown name or option, or an option out of range.

    Example:
        >>> import torch
        >>> build_loss("bce", {"label_smoothing": 0.0})(torch.zeros(1, 4), torch.ones(1, 4)).item()
        0.693...
    """
    return bind_options(name, LOSSES.find(name), options or {})


def bind_options(name: str, function: Callable[..., Tensor], options: Mapping[str, Any]) -> Callable[..., Tensor]:
    """Return the function with its keyword-only options filled in, after a check of their names and values."""
    known = known_parameters(function)
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise PPLValueError(
            f"loss {name!r} has no option {', '.join(map(repr, unknown))}; it knows {', '.join(known) or 'none'}"
        )
    return partial(function, **check_parameters(function, **options))
