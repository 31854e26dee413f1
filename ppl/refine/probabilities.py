"""From class activation maps to the probabilities that refiners take."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt
import torch

from ppl.errors import PPLValueError
from ppl.refine.arrays import as_tensor, check_finite, like

__all__ = ["Background", "cams_to_probs"]

Array = TypeVar("Array", npt.NDArray[np.generic], torch.Tensor)
Background: TypeAlias = float | Callable[[torch.Tensor], torch.Tensor]


def cams_to_probs(maps: Array, background: Background = 0.2) -> Array:
    """Put a background score in front of CAMs and let every pixel sum to 1.

    Args:
        maps: `(k, h, w)` CAMs in [0, 1].
        background: a constant score, as in IRN; or a rule that gets the best class value of every pixel `(h, w)`, a
            tensor, and returns the background's scores, such as PSA's `lambda best: (1 - best) ** 4`
            (`ppl.cam.PowerBackground(4)`) or `ppl.cam.otsu_background`. The default of 0.2 is ours.

    Returns:
        `(1 + k, h, w)` of the same kind: channel 0 is the background. A pixel without any score is background.

    Raises:
        PPLValueError: for negative or non-finite maps, or a constant outside [0, 1].

    Example:
        >>> import numpy as np
        >>> cams_to_probs(np.array([[[0.0, 0.3]], [[0.0, 0.5]]], np.float32), background=0.2)[:, 0, 1]
        array([0.2, 0.3, 0.5], dtype=float32)
    """
    scores = as_tensor(maps, "maps", "k h w")
    check_finite("maps", scores)
    if scores.numel() and scores.min() < 0:
        raise PPLValueError(f"CAMs must not be negative, got {scores.min():.3g}: apply a ReLU first")
    if not callable(background) and not (isinstance(background, (int, float, np.number)) and 0 <= background <= 1):
        raise PPLValueError(
            f"background must be a score in [0, 1] or a rule such as ppl.cam.otsu_background, got {background!r}"
        )
    best = scores.amax(dim=0) if len(scores) else scores.new_zeros(scores.shape[1:])
    behind = background(best) if callable(background) else torch.full_like(best, float(background))
    stack = torch.cat([behind[None].to(scores), scores])
    total = stack.sum(dim=0)
    stack[0] = torch.where(total > 0, stack[0], torch.ones_like(total))
    return like(maps, stack / torch.where(total > 0, total, torch.ones_like(total)))
