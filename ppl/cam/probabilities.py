"""From class maps to probabilities, the input of refinement: the background's score becomes channel 0."""

from __future__ import annotations

import torch
from torch import Tensor

from ppl.cam.background import Background, background_score, parse_background
from ppl.cam.config import CamConfig
from ppl.errors import PPLValueError

__all__ = ["DEFAULT_BACKGROUND", "maps_to_probs"]

DEFAULT_BACKGROUND: Background = parse_background(CamConfig().background)
"""The background rule of `CamConfig`, for functions that take a rule."""

_ROUNDING = 1e-2  # resizing and half precision may leave [0, 1] by this much


def maps_to_probs(maps: Tensor, background: Background = DEFAULT_BACKGROUND) -> Tensor:
    """Put the score of the background in front of class maps, and divide every pixel by its sum.

    Args:
        maps: (k,h,w) in [0,1], any floating type.
        background: as for `CamResult.to_mask`.

    Returns:
        (1+k,h,w) of the type of `maps`: channel 0 is the background. A pixel without any score is background.

    Raises:
        PPLValueError: if a value is NaN, infinite or outside [0,1], or `background` is not a rule.

    Example:
        >>> maps_to_probs(torch.tensor([[[0.0, 0.3]], [[0.0, 0.5]]]), background=0.2)[:, 0, 1]
        tensor([0.2000, 0.3000, 0.5000])
    """
    check_range(maps)
    best = maps.amax(dim=0) if len(maps) else maps.new_zeros(maps.shape[1:])
    score = background_score(best, background).to(maps)
    if not len(maps):
        return torch.ones_like(score)[None]
    stack = torch.cat((score[None], maps))
    total = stack.sum(dim=0)
    stack[0] = torch.where(total > 0, stack[0], 1)
    return stack / torch.where(total > 0, total, 1)


def check_range(maps: Tensor, *, lowest_allowed: float = 0.0, highest_allowed: float = 1.0) -> None:
    """Raise PPLValueError if maps hold NaN, infinity or a value outside of a range; rounding may leave it."""
    if not maps.numel():
        return
    lowest, highest = (float(value) for value in torch.aminmax(maps.detach()))
    if not (lowest > -float("inf") and highest < float("inf")):  # NaN fails both comparisons
        bad = int((~torch.isfinite(maps)).sum())
        raise PPLValueError(f"maps hold {bad} values that are NaN or infinite: check the model's weights and the image")
    if lowest < lowest_allowed:
        raise PPLValueError(f"maps must not be negative, got {lowest:.3g}: apply a ReLU first")
    if highest > highest_allowed + _ROUNDING:
        raise PPLValueError(
            f"maps must lie in [0, 1], got {highest:.3g}: divide them by their maximum, or 8-bit maps by 255"
        )
