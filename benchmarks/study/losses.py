"""Auxiliary losses that the study tries beside those of `ppl.train`."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ppl.train.auxiliary import AUXILIARY, Views, consistency, patch_scores
from ppl.train.losses import Loss


def puzzle(views: Views, classify: Loss) -> Tensor:
    """Compare every patched branch with the un-patched one, as Puzzle-CAM, on maps that are divided by their maximum.

    On maps that are not normalised the loss is smallest when all maps are zero.
    """
    *patched, whole = (normalized(maps) for maps in views.branches)
    return torch.stack([consistency(maps, whole, views.targets) for maps in patched]).mean()


def normalized(maps: Tensor) -> Tensor:
    positive = maps.relu()
    return positive / (positive.amax(dim=(2, 3), keepdim=True) + 1e-5)


def erased(views: Views, classify: Loss, *, share: float = 0.25) -> Tensor:
    """Classify the image without the patches that say most about a class (adversarial erasing by patches).

    The patches of a branch do not see each other, so leaving a patch's score out hides the patch.
    """
    logits = []
    for maps, grid in zip(views.branches, views.grids, strict=False):  # the un-patched branch has no grid
        scores = patch_scores(maps, grid)
        kept = scores.shape[1] - math.ceil(share * scores.shape[1])
        rest = scores.topk(kept, dim=1, largest=False).values.mean(dim=1)
        logits.append(torch.where(views.targets > 0, rest, scores.mean(dim=1)))
    return torch.stack([classify(each, views.targets) for each in logits]).mean()


AUXILIARY.register("puzzle", puzzle)
AUXILIARY.register("erased", erased)
