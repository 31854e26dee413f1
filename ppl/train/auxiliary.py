"""Auxiliary losses: losses on the class maps, added to the classification loss with a weight each.

Each entry of `AUXILIARY` is a function `(views, classify, *, options) -> scalar` that takes tensors from `Views` and
calls a pure function of tensors. The weights and the combinations are ours.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from einops import rearrange
from pydantic import Field
from torch import Tensor

from ppl.errors import PPLValueError
from ppl.layers.grid import as_grid, check_grid_fits
from ppl.registry import Registry
from ppl.train.losses import Loss

__all__ = ["AUXILIARY", "Views", "consistency", "equivariance", "patch_logits", "patch_scores", "transform_view"]

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Rows = Annotated[int, Field(ge=1)]


@dataclass(frozen=True)
class Views:
    """The result of the model for a batch.

    Attributes:
        images: (B, 3, H, W).
        targets: (B, K), 1 where the image has the tag.
        branches: class maps (B, K, h, w) of each branch, the un-patched one last.
        grids: grid of each patched branch, in the same order.
        maps_of: function from images to class maps, for losses that compare several views of the images.
        pool: function from class maps (B, K, h, w) to logits (B, K).
    """

    images: Tensor
    targets: Tensor
    branches: Sequence[Tensor]
    grids: Sequence[tuple[int, int]]
    maps_of: Callable[[Tensor], Tensor]
    pool: Callable[[Tensor], Tensor]

    @property
    def maps(self) -> Tensor:
        """Class maps (B, K, h, w), summed over all branches."""
        return torch.stack(list(self.branches)).sum(0)


def consistency(patched: Tensor, whole: Tensor, targets: Tensor) -> Tensor:
    """Return the mean absolute difference of two class maps of the classes in the image, as Puzzle-CAM.

    Args:
        patched: (B, K, h, w) class maps of a patched branch.
        whole: (B, K, h, w) class maps of the un-patched branch.
        targets: (B, K), 1 where the image has the tag.

    Returns:
        Scalar; 0 for a batch without tags.

    Example:
        >>> consistency(torch.zeros(1, 2, 3, 3), torch.full((1, 2, 3, 3), 2.0), torch.tensor([[1.0, 0.0]])).item()
        2.0
    """
    return _mean_of_present((patched - whole).abs(), targets)


def patch_scores(maps: Tensor, grid: tuple[int, int]) -> Tensor:
    """Return the mean of the class maps over every patch, padding left out.

    Args:
        maps: (B, K, h, w) merged class maps.
        grid: rows and columns of patches.

    Returns:
        (B, P, K) scores of the P patches that have cells of the map; patches of padding alone have no score.

    Raises:
        PPLValueError: if the grid has more rows or columns than the map.

    Example:
        >>> patch_scores(torch.tensor([[[[4.0, 0.0], [0.0, 2.0]]]]), (2, 1)).flatten().tolist()
        [2.0, 1.0]
    """
    height, width = maps.shape[-2:]
    check_grid_fits(grid, height, width)
    # same patches as `patch_destruct`; at the lower and right border the mean is over the cells of the map alone
    size = (-(-height // grid[0]), -(-width // grid[1]))
    scores = F.avg_pool2d(maps, size, ceil_mode=True, count_include_pad=False)
    return rearrange(scores, "b k rows columns -> b (rows columns) k")


def patch_logits(
    maps: Tensor, grid: tuple[int, int], *, pool: Literal["max", "lse"] = "lse", sharpness: float = 4.0
) -> Tensor:
    """Score every patch by its mean, and the image by its best patch or by a soft maximum over patches.

    Under average pooling a class in one patch of four has a quarter of the weight.

    Args:
        maps: (B, K, h, w) merged class maps.
        grid: rows and columns of patches.
        pool: "max" of the patches, or "lse": `log(mean(exp(sharpness * score))) / sharpness`.
        sharpness: above 0; the limit at 0 is the mean of the patches, the limit at infinity their maximum.

    Returns:
        (B, K) logits.

    Example:
        >>> maps = torch.tensor([[[[4.0, 0.0], [0.0, 0.0]]]])
        >>> patch_logits(maps, (2, 2), pool="max").item()
        4.0
    """
    scores = patch_scores(maps, grid)
    if pool == "max":
        return scores.amax(dim=1)
    if pool == "lse":
        return (torch.logsumexp(sharpness * scores, dim=1) - math.log(scores.shape[1])) / sharpness
    raise PPLValueError(f'pool must be "max" or "lse", got {pool!r}')


def transform_view(images: Tensor, *, scale: float, flip: bool) -> Tensor:
    """Rescale and mirror images or maps (bilinear, align_corners=False).

    Example:
        >>> transform_view(torch.zeros(1, 3, 8, 12), scale=0.5, flip=True).shape
        torch.Size([1, 3, 4, 6])
    """
    height, width = images.shape[-2:]
    size = (max(1, round(height * scale)), max(1, round(width * scale)))
    if size != (height, width):
        images = F.interpolate(images, size, mode="bilinear", align_corners=False)
    return images.flip(-1) if flip else images


def equivariance(maps: Tensor, maps_of_view: Tensor, targets: Tensor, *, flip: bool) -> Tensor:
    """Return the mean absolute difference between the maps of a view and the view of the maps, as SEAM's first loss.

    Both maps are first cut at zero and divided by their spatial maximum, so that only their shape counts.

    Args:
        maps: (B, K, h, w) class maps of the images.
        maps_of_view: (B, K, h', w') class maps of the transformed images.
        targets: (B, K), 1 where the image has the tag.
        flip: whether the view is mirrored.

    Returns:
        Scalar; 0 for a batch without tags.

    Example:
        >>> maps = torch.rand(1, 2, 4, 4)
        >>> equivariance(maps, maps.flip(-1), torch.ones(1, 2), flip=True).item()
        0.0
    """
    expected = _shape_of(F.interpolate(maps, maps_of_view.shape[-2:], mode="bilinear", align_corners=False))
    expected = expected.flip(-1) if flip else expected
    return _mean_of_present((expected - _shape_of(maps_of_view)).abs(), targets)


def _mean_of_present(error: Tensor, targets: Tensor) -> Tensor:
    """Return the mean of (B, K, h, w) over the maps of classes in the image."""
    return (error.mean(dim=(2, 3)) * targets).sum() / targets.sum().clamp(min=1)


def _shape_of(maps: Tensor) -> Tensor:
    positive = maps.relu()
    return positive / (positive.amax(dim=(2, 3), keepdim=True) + 1e-5)


def _branches(views: Views, classify: Loss) -> Tensor:
    """Classify the image by every branch alone."""
    return torch.stack([classify(views.pool(maps), views.targets) for maps in views.branches]).mean()


def _consistency(views: Views, classify: Loss) -> Tensor:
    """Compare every other branch with the un-patched one."""
    *patched, whole = views.branches
    return torch.stack([consistency(maps, whole, views.targets) for maps in patched]).mean()


def _patches(views: Views, classify: Loss, *, pool: Literal["max", "lse"] = "lse", sharpness: Positive = 4.0) -> Tensor:
    """Classify the image by the scores of the patches of every patched branch."""
    logits = [
        patch_logits(maps, grid, pool=pool, sharpness=sharpness)
        for maps, grid in zip(views.branches, views.grids, strict=False)  # the un-patched branch has no grid
    ]
    return torch.stack([classify(scores, views.targets) for scores in logits]).mean()


def _every_patch(views: Views, classify: Loss, *, grid: Rows | tuple[Rows, Rows] = 2) -> Tensor:
    """Classify every patch with the tags of the image, so that every part of the object has to show its class.

    The tags are wrong for patches without the object. The maps are summed over all branches, so that the loss also
    applies to models without patches.
    """
    scores = patch_scores(views.maps, as_grid(grid))
    return classify(scores.flatten(0, 1), views.targets.repeat_interleave(scores.shape[1], dim=0))


def _equivariance(views: Views, classify: Loss, *, scale: Positive = 0.5, flip: bool = True) -> Tensor:
    """Compare the maps of a smaller, mirrored image with the smaller, mirrored maps."""
    maps_of_view = views.maps_of(transform_view(views.images, scale=scale, flip=flip))
    return equivariance(views.maps, maps_of_view, views.targets, flip=flip)


AUXILIARY: Registry[Callable[..., Tensor]] = Registry("auxiliary loss")
"""The auxiliary losses by name."""
AUXILIARY.register("branches", _branches)
AUXILIARY.register("consistency", _consistency)
AUXILIARY.register("patches", _patches)
AUXILIARY.register("every_patch", _every_patch)
AUXILIARY.register("equivariance", _equivariance)
