"""From maps to probabilities: the one way that masks and refiners share."""

from __future__ import annotations

import torch
from torch import Tensor

from ppl.cam.background import Background, background_score

__all__ = ["maps_to_probs"]


def maps_to_probs(maps: Tensor, background: Background = "auto") -> Tensor:
    """Put the score of the background in front of maps, and let every pixel sum to 1.

    Args:
        maps: (k,h,w) in [0,1].
        background: a threshold in [0,1]; "auto" for Otsu's threshold of these maps; or a rule such as
            `PowerBackground(4)`, from the largest class values (h,w) to the scores of the background.

    Returns:
        (1+k,h,w): channel 0 is the background, channel i+1 belongs to map i. A pixel without any score is background.

    Raises:
        PPLValueError: if `background` is none of these.

    Example:
        >>> maps_to_probs(torch.tensor([[[0.0, 0.3]], [[0.0, 0.5]]]), 0.2)[:, 0, 1]
        tensor([0.2000, 0.3000, 0.5000])
    """
    best = maps.amax(dim=0) if len(maps) else maps.new_zeros(maps.shape[1:])
    score = background_score(best, background).to(maps)
    if not len(maps):
        return torch.ones_like(score)[None]
    stack = torch.cat((score[None], maps))
    total = stack.sum(dim=0)
    stack[0] = torch.where(total > 0, stack[0], 1)
    return stack / torch.where(total > 0, total, 1)
