"""From class activation maps to the probabilities that refiners take."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch

from ppl.cam import maps_to_probs
from ppl.cam.background import Background
from ppl.errors import PPLValueError
from ppl.refine.arrays import as_tensor, check_finite, like

__all__ = ["Background", "cams_to_probs"]

Array = TypeVar("Array", npt.NDArray[np.generic], torch.Tensor)


def cams_to_probs(maps: Array, background: Background = "auto") -> Array:
    """Put a background score in front of CAMs and let every pixel sum to 1.

    Args:
        maps: `(k, h, w)` CAMs in [0, 1].
        background: a constant score, as in IRN; "auto" for Otsu's threshold of these maps; or a rule that gets the best
            class value of every pixel `(h, w)`, a tensor, and returns the background's scores, such as PSA's
            `lambda best: (1 - best) ** 4` (`ppl.cam.PowerBackground(4)`).

    Returns:
        `(1 + k, h, w)` of the same kind: channel 0 is the background. A pixel without any score is background.

    Raises:
        PPLValueError: for maps that are not in [0, 1] or not finite, or a background that is none of these.

    Example:
        >>> import numpy as np
        >>> cams_to_probs(np.array([[[0.0, 0.3]], [[0.0, 0.5]]], np.float32), background=0.2)[:, 0, 1]
        array([0.2, 0.3, 0.5], dtype=float32)
    """
    scores = as_tensor(maps, "maps", "k h w")
    check_finite("maps", scores)
    if scores.numel() and scores.min() < 0:
        raise PPLValueError(f"CAMs must not be negative, got {scores.min():.3g}: apply a ReLU first")
    if scores.numel() and scores.max() > 1 + _ROUNDING:
        raise PPLValueError(f"CAMs must not be above 1, got {scores.max():.3g}: divide each map by its maximum")
    return like(maps, maps_to_probs(scores, background))


# What half precision or resizing may leave above 1.
_ROUNDING = 1e-2
