"""Ways to turn what a model computes into activation maps; a new one is a function and a line in `METHODS`."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

from torch import Tensor

from ppl.cam.layercam import Evidence
from ppl.cam.reader import ClassMapReader

__all__ = ["METHODS", "CamMethod", "Reading", "cam", "layercam", "whole"]


class Reading(NamedTuple):
    """What a method makes of a batch of images.

    Attributes:
        activations: (B,K,h,w), 0 or more.
        logits: (B,K).
        evidence: from n pairs of image and class to maps (n,H,W) that the activations are to be sharpened with; None
            leaves them as they are.
    """

    activations: Tensor
    logits: Tensor
    evidence: Evidence | None = None


CamMethod: TypeAlias = Callable[[ClassMapReader, Tensor], Reading]
"""Reader and images (B,3,H,W) in; what is read off them out."""


def cam(reader: ClassMapReader, x: Tensor) -> Reading:
    """The class activation map: ReLU of the class maps.

    Source:
        Learning Deep Features for Discriminative Localization (Zhou et al., CVPR 2016).
    """
    class_maps, logits = reader(x)
    return Reading(class_maps.relu(), logits)


def whole(reader: ClassMapReader, x: Tensor) -> Reading:
    """The class activation map of the un-patched branch alone, for which nothing has to be cut.

    Patches are then a way to train and not to infer: one pass in place of two or more. Logits are those of all
    branches' classifiers on the un-patched map. The choice is ours; see the page of results for what it gains.
    """
    class_maps, logits = reader.whole(x)
    return Reading(class_maps.relu(), logits)


def layercam(reader: ClassMapReader, x: Tensor) -> Reading:
    """The map of `whole`, sharpened by LayerCAM of the stage before the last: the last of the default cuts.

    Cells of the final map have seen most of the image, and what they say spreads over the surroundings of an object;
    those of an earlier stage have not. The one times the square root of the other keeps what both say. Backward passes
    through what comes after that stage are needed, one for each class of the image that has most.

    Source:
        LayerCAM (Jiang et al., IEEE TIP 2021). Its product with the class map, in place of the maximum of several
        layers, is ours; see the page of results for what it gains.
    """
    class_maps, logits, evidence = reader.layercam(x)
    return Reading(class_maps.detach().relu(), logits.detach(), evidence)


METHODS: dict[str, CamMethod] = {"cam": cam, "whole": whole, "layercam": layercam}
