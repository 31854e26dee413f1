"""A call of `generate` without its images."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ppl.cam.classifier import Classifier
from ppl.cam.config import CamConfig

__all__ = ["Job"]

# Pixels of one forward pass where no batch size is given. A CPU gains nothing from more; in a ResNet-50 they take about
# a quarter of a GB there, and 4 GB on CUDA.
_PIXELS = {"cpu": 2**20, "cuda": 2**24}


@dataclass(frozen=True)
class Job:
    """A call of `generate` without its images.

    Attributes:
        classifier: the classifier.
        config: the settings.
        device: device of the results.
    """

    classifier: Classifier
    config: CamConfig
    device: torch.device

    @property
    def scales(self) -> list[float]:
        """The scales, beginning with the scale nearest to 1, which gives classes, scores and the size of the map."""
        return sorted(self.config.scales, key=lambda scale: abs(math.log(scale)))

    @property
    def multi_label(self) -> bool:
        """Whether more than one class is predicted for an image."""
        setting = self.config.multi_label
        return self.classifier.multi_label if setting is None else setting

    @property
    def example(self) -> Tensor:
        """A tensor of the dtype and on the device that the model computes with."""
        parameters = self.classifier.model.parameters()
        return next((one for one in parameters if one.is_floating_point()), torch.empty(0))

    def images_per_pass(self, height: int, width: int) -> int:
        """Return the number of images of one size in a forward pass; their mirror images come on top."""
        if self.config.batch_size is not None:
            return self.config.batch_size
        pixels = height * width * max(self.config.scales) ** 2 * (2 if self.config.flip else 1)
        return max(1, int(_PIXELS.get(self.example.device.type, _PIXELS["cpu"]) / pixels))

    def map_size(self, image: tuple[int, int], feature: tuple[int, int]) -> tuple[int, int]:
        """Return (h,w) of the maps of an image, given the sizes of the image and of its feature map."""
        size = self.config.size
        if isinstance(size, tuple):
            return size
        return image if size == "image" else feature
