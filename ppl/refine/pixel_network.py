"""A linear classifier of the cells of a frozen backbone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from ppl.errors import PPLValueError
from ppl.refine.frozen_backbone import FrozenBackbone

__all__ = ["PixelClassifier"]


class PixelClassifier(FrozenBackbone):
    """A 1x1 convolution on the features of a frozen backbone that tells the classes and the background apart.

    The features are those of the last two default cuts, which `propagated_cam` compares too, of the image at `scale`
    times its size. Later layers know the class of an image at every cell, and lose where its objects end.

    Args:
        backbone: name of a timm model, which is built without weights, or a module, which is copied with its weights.
        num_classes: number of classes without the background.
        scale: factor by which images are enlarged before the backbone.
        stages: dotted names of the stages, for a module without `feature_info`.
        backbone_options: further arguments for timm.
        weights: `state_dict` of the backbone, for example of a trained classifier; further tensors are ignored.
        useful: whether the classifier agrees with masks of images that a fit has not seen. The refiner
            `pixel_classifier` leaves probabilities as they are if it does not.

    Raises:
        PPLValueError: for no classes, a scale of 0 or less, a backbone whose stages are not found, or weights that do
            not fit the backbone.

    Example:
        >>> network = PixelClassifier("test_resnet", num_classes=3)
        >>> network(torch.zeros(2, 3, 64, 96)).shape  # stride 16 at twice the size: cells of 8 pixels
        torch.Size([2, 4, 8, 12])
    """

    def __init__(
        self,
        backbone: str | nn.Module,
        num_classes: int,
        *,
        scale: float = 2.0,
        stages: Sequence[str] | None = None,
        backbone_options: Mapping[str, Any] | None = None,
        weights: Mapping[str, torch.Tensor] | None = None,
        useful: bool = True,
    ) -> None:
        if num_classes < 1 or not scale > 0:
            raise PPLValueError(f"need 1 class or more and a scale above 0, got {num_classes} and {scale}")
        super().__init__(backbone, stages=stages, backbone_options=backbone_options, weights=weights)
        self.num_classes, self.scale = num_classes, scale
        self.config |= {"num_classes": num_classes, "scale": scale, "useful": useful}
        self._levels = self.default_levels[-2:]
        self.head = nn.Conv2d(sum(self.channels[level] for level in self._levels), num_classes + 1, 1)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)  # type: ignore[arg-type]

    @property
    def useful(self) -> bool:
        """Whether the classifier agrees with masks of images that a fit has not seen."""
        return bool(self.config["useful"])

    @useful.setter
    def useful(self, value: bool) -> None:
        self.config["useful"] = value

    def features(self, images: torch.Tensor) -> torch.Tensor:
        """Return the features (B,C,h,w) of images (B,3,H,W) in [0, 1]; cells are those of the coarsest level."""
        height, width = (max(1, round(side * self.scale)) for side in images.shape[-2:])
        enlarged = F.interpolate(images, (height, width), mode="bilinear", align_corners=False)
        chosen = self.levels(enlarged, self._levels)
        cells = min(((level.shape[2], level.shape[3]) for level in chosen), key=lambda size: size[0] * size[1])
        features = torch.cat([F.interpolate(level.float(), cells, mode="area") for level in chosen], dim=1)
        padded = self.padded_size(height, width)
        rows, columns = (
            -(-count * side // whole) for count, side, whole in zip(cells, (height, width), padded, strict=True)
        )
        return features[..., :rows, :columns]

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the logits (B,1+num_classes,h,w) of images (B,3,H,W) in [0, 1]; channel 0 is the background."""
        logits: torch.Tensor = self.head(self.features(images))
        return logits
