"""Ways to turn what a model computes into activation maps; a new one is a function and a line in `METHODS`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from torch import Tensor

from ppl.cam.reader import ClassMapReader

__all__ = ["METHODS", "CamMethod", "cam", "whole"]

CamMethod: TypeAlias = Callable[[ClassMapReader, Tensor], tuple[Tensor, Tensor]]
"""Reader and images (B,3,H,W) in; activations (B,K,h,w), 0 or more, and logits (B,K) out."""


def cam(reader: ClassMapReader, x: Tensor) -> tuple[Tensor, Tensor]:
    """The class activation map: ReLU of the class maps.

    Source:
        Learning Deep Features for Discriminative Localization (Zhou et al., CVPR 2016).
    """
    class_maps, logits = reader(x)
    return class_maps.relu(), logits


def whole(reader: ClassMapReader, x: Tensor) -> tuple[Tensor, Tensor]:
    """The class activation map of the un-patched branch alone, for which nothing has to be cut.

    Patches are then a way to train and not to infer: one pass in place of two or more. Logits are those of all
    branches' classifiers on the un-patched map. The choice is ours; see the page of results for what it gains.
    """
    class_maps, logits = reader.whole(x)
    return class_maps.relu(), logits


METHODS: dict[str, CamMethod] = {"cam": cam, "whole": whole}
