"""From class activation maps to the probabilities that refiners take."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch

from ppl.cam.background import Background
from ppl.cam.probabilities import DEFAULT_BACKGROUND, maps_to_probs
from ppl.refine.arrays import as_tensor, like

__all__ = ["DEFAULT_BACKGROUND", "Background", "cams_to_probs"]

Array = TypeVar("Array", npt.NDArray[np.generic], torch.Tensor)


def cams_to_probs(maps: Array, background: Background = DEFAULT_BACKGROUND) -> Array:
    """Put the score of the background in front of CAMs, and divide every pixel by its sum.

    `CamResult.to_probs` does the same for the maps of a result.

    Args:
        maps: `(k, h, w)` CAMs in [0, 1], numpy or torch.
        background: as for `ppl.cam.CamResult.to_mask`: a constant score, as in IRN; "auto", Otsu's threshold of the
            image; or a rule that maps the best class value of every pixel, a tensor `(h, w)`, to the background's
            scores, such as PSA's `ppl.cam.PowerBackground(4)`.

    Returns:
        `(1 + k, h, w)` of the same kind and type: channel 0 is the background. A pixel without any score is background.

    Raises:
        PPLTypeError: if the maps are no array of floating point numbers.
        PPLValueError: for maps that are not finite or leave [0, 1], or a background that is not a rule.

    Example:
        >>> import numpy as np
        >>> cams_to_probs(np.array([[[0.0, 0.3]], [[0.0, 0.5]]], np.float32), background=0.2)[:, 0, 1]
        array([0.2, 0.3, 0.5], dtype=float32)
    """
    return like(maps, maps_to_probs(as_tensor(maps, "maps", "k h w"), background))
