"""Random views of images and their label maps, which seed, epoch and image alone decide."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch.utils.data import Dataset

from ppl.data.loader import image_seed
from ppl.errors import PPLValueError

__all__ = ["IGNORED", "RandomViews", "random_view"]

IGNORED = 255
"""The label of pixels that no training and no score counts."""


def random_view(
    image: torch.Tensor,
    labels: torch.Tensor,
    *,
    crop: int,
    scale: tuple[float, float],
    fill: torch.Tensor,
    generator: torch.Generator,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Resize by a random factor, mirror half of the time, and cut a random square; pad where the image is smaller.

    Args:
        image: `(3, H, W)` in [0, 1].
        labels: `(H, W)` integers.
        crop: side of the square in pixels.
        scale: lowest and highest factor.
        fill: `(3, 1, 1)` colour of the padding; its labels are unsure.
        generator: the source of the random numbers.

    Returns:
        `(3, crop, crop)` and `(crop, crop)`.

    Example:
        >>> generator = torch.Generator().manual_seed(0)
        >>> view, labels = random_view(torch.zeros(3, 9, 7), torch.zeros(9, 7, dtype=torch.long), crop=8,
        ...                            scale=(0.5, 1.5), fill=torch.zeros(3, 1, 1), generator=generator)
        >>> view.shape, labels.shape
        (torch.Size([3, 8, 8]), torch.Size([8, 8]))
    """
    chance = torch.rand(4, generator=generator).tolist()
    factor = scale[0] + chance[0] * (scale[1] - scale[0])
    size = [max(1, round(side * factor)) for side in labels.shape]
    image = F.interpolate(image[None], size, mode="bilinear", align_corners=False, antialias=factor < 1)[0]
    labels = F.interpolate(labels[None, None].float(), size, mode="nearest-exact")[0, 0].long()
    if chance[1] < 0.5:
        image, labels = image.flip(-1), labels.flip(-1)
    view, view_labels = fill.expand(3, crop, crop).clone(), torch.full((crop, crop), IGNORED)
    source, target = zip(*(_overlap(side, crop, c) for side, c in zip(size, chance[2:], strict=True)), strict=True)
    view[:, target[0], target[1]] = image[:, source[0], source[1]]
    view_labels[target] = labels[source]
    return view, view_labels


def _overlap(side: int, crop: int, chance: float) -> tuple[slice, slice]:
    """Return where a random crop meets the image along one axis: the range in the image and the range in the crop."""
    start = round(chance * (side - crop))  # negative if the image is shorter than the crop
    length = min(side, crop)
    return slice(max(start, 0), max(start, 0) + length), slice(max(-start, 0), max(-start, 0) + length)


class RandomViews(Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """A dataset of random views of pairs of an image and its label map.

    The key of a view is `(epoch, index)`, as `EpochSampler` yields it; an index alone stands for epoch 0.

    Args:
        pairs: map-style dataset of `(image, labels)`: `(H, W, 3)` uint8 and `(H, W)` integers, numpy or torch.
        crop: side of the views in pixels.
        scale: range of the random factor.
        fill: `(3, 1, 1)` colour of the padding.
        seed: the seed.

    Example:
        >>> import numpy as np
        >>> pairs = [(np.zeros((9, 7, 3), np.uint8), np.zeros((9, 7), np.uint8))]
        >>> RandomViews(pairs, crop=8, scale=(1, 1), fill=torch.zeros(3, 1, 1), seed=0)[0][0].shape
        torch.Size([3, 8, 8])
    """

    def __init__(self, pairs: Any, *, crop: int, scale: tuple[float, float], fill: torch.Tensor, seed: int) -> None:
        self.pairs, self.crop, self.scale, self.fill, self.seed = pairs, crop, scale, fill, seed

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, key: int | tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor]:
        epoch, index = key if isinstance(key, tuple) else (0, key)
        image, labels = (torch.as_tensor(part) for part in self.pairs[index])
        if image.ndim != 3 or image.shape[-1] != 3 or image.dtype != torch.uint8 or labels.shape != image.shape[:2]:
            raise PPLValueError(
                f"pair {index} must be an image (H, W, 3) uint8 and labels (H, W), got {tuple(image.shape)}"
                f" {image.dtype} and {tuple(labels.shape)}"
            )
        generator = torch.Generator().manual_seed(image_seed(self.seed, epoch, index))
        return random_view(
            image.permute(2, 0, 1) / 255.0,
            labels.long(),
            crop=self.crop,
            scale=self.scale,
            fill=self.fill,
            generator=generator,
        )
