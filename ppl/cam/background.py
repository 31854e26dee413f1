"""Background rules: the score of the background at every pixel, which class maps must exceed."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from numbers import Real
from typing import Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor

from ppl.errors import PPLValueError

__all__ = ["Background", "PowerBackground", "background_score", "otsu_background", "parse_background"]

Background: TypeAlias = float | Literal["auto"] | Callable[[Tensor], Tensor]
"""A threshold in [0,1], "auto", or a rule from the largest class values (h,w) to background scores (h,w)."""

_BINS = 256
_TINY = float(np.finfo(np.float32).tiny)  # Smaller numbers lose digits in float32.


@dataclass(frozen=True)
class PowerBackground:
    """The rule that the background scores `(1 - best)**alpha`, where `best` is the largest class value at the pixel.

    A large alpha gives a weak background (much foreground), a small one a strong background.

    Args:
        alpha: exponent above 0. PSA takes 4 for reliable and 32 for generous foreground, SEAM 4 and 24.

    Source:
        Learning Pixel-level Semantic Affinity (Ahn and Kwak, CVPR 2018), equation 2.

    Example:
        >>> import torch
        >>> PowerBackground(alpha=2)(torch.tensor([[0.0, 0.5, 1.0]]))
        tensor([[1.0000, 0.2500, 0.0000]])
    """

    alpha: float

    def __post_init__(self) -> None:
        if not (isinstance(self.alpha, Real) and self.alpha > 0 and math.isfinite(self.alpha)):
            raise PPLValueError(f"alpha must be a finite number above 0, got {self.alpha!r}")

    def __call__(self, best: Tensor) -> Tensor:
        """Return the scores (h,w) of the background for the largest class values (h,w) in [0,1]."""
        return (1 - best).clamp(min=0) ** self.alpha


def otsu_background(best: Tensor) -> Tensor:
    """Return Otsu's threshold of an image's own values at every pixel: the background rule "auto".

    Otsu's method splits the values into two groups that differ as much as possible. No ground truth is needed. A map
    with one value, up to rounding, is all background. That "auto" means Otsu's rule is our choice.

    Args:
        best: the largest class value of every pixel, shape (h,w).

    Returns:
        The threshold at every pixel, shape (h,w).

    Source:
        A threshold selection method from gray-level histograms (Otsu, 1979), as `skimage.filters.threshold_otsu`.

    Example:
        >>> import torch
        >>> best = torch.tensor([[0.0, 0.1, 0.1, 0.9], [0.1, 0.0, 0.8, 1.0]])
        >>> (best > otsu_background(best)).int()
        tensor([[0, 0, 0, 1],
                [0, 0, 1, 1]], dtype=torch.int32)
    """
    from skimage.filters import threshold_otsu

    best = best.detach()
    values = best[best.isfinite()].cpu().double().numpy()  # MPS has no float64
    if not values.size:
        return torch.full_like(best, math.inf)
    spread = values.max() - values.min()
    if spread <= max(_TINY, _BINS * np.spacing(np.abs(values).max())):  # One value, up to rounding.
        return torch.full_like(best, float(values.max()))
    # skimage gives the middle of the last bin of the lower group; that bin's upper edge keeps the group together.
    return torch.full_like(best, float(threshold_otsu(values, nbins=_BINS) + spread / _BINS / 2))


def background_score(best: Tensor, background: Background) -> Tensor:
    """Return the score of the background at every pixel; a pixel is foreground if its best class is *above* the score.

    Args:
        best: the largest class value of every pixel, shape (h,w), in [0,1].
        background: a threshold in [0,1]; "auto" for :func:`otsu_background`; or a rule such as `PowerBackground(4)`.

    Returns:
        Scores, shape (h,w).

    Raises:
        PPLValueError: if `background` is none of these.

    Example:
        >>> import torch
        >>> background_score(torch.zeros(1, 2), 0.25)
        tensor([[0.2500, 0.2500]])
    """
    if isinstance(background, str):
        if background == "auto":
            return otsu_background(best)
    elif callable(background):
        return background(best)
    elif isinstance(background, Real) and not isinstance(background, bool) and 0 <= background <= 1:
        return torch.full_like(best, float(background))
    raise PPLValueError(
        'background must be a threshold in [0,1], "auto" or a rule such as PowerBackground(alpha=4), '
        f"got {background!r}"
    )


def parse_background(value: float | str) -> Background:
    """Return the background rule that a setting stands for.

    Args:
        value: a number in [0,1], "auto", or "power:ALPHA".

    Returns:
        A float, "auto" or a `PowerBackground`, as `CamResult.to_mask` takes them.

    Raises:
        PPLValueError: for anything else.

    Example:
        >>> parse_background(0.2)
        0.2
        >>> parse_background("power:4")
        PowerBackground(alpha=4.0)
    """
    if value == "auto":
        return "auto"
    kind, _, number = value.partition(":") if isinstance(value, str) else ("threshold", "", str(value))
    try:
        if kind == "power":
            return PowerBackground(float(number))
        threshold = float(number or kind)
    except ValueError:
        raise PPLValueError(f'{value!r} is not a number, "auto" or "power:ALPHA" such as "power:4"') from None
    if not 0 <= threshold <= 1:
        raise PPLValueError(f"{value} is outside [0, 1]: maps are scaled to a maximum of 1")
    return threshold
