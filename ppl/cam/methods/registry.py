"""The table of CAM methods."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from torch import Tensor

from ppl.cam.readings import MapsOf
from ppl.registry import Registry

if TYPE_CHECKING:
    from ppl.cam.classifier import Classifier

__all__ = ["METHODS", "CamMethod", "Reading", "register_method"]


@dataclass(frozen=True)
class Reading:
    """The result of a method for a batch of images.

    Attributes:
        logits: (B,K).
        size: (h,w) of the maps.
        maps: gives the maps of pairs of image and class, 0 or more.
        evidence: gives maps (n,H,W) that the sum of `maps` over all scales is sharpened with; None: no sharpening.
        features: maps (B,C,h,w) of layers. Those of the largest scale tell which cells are alike when the sum of `maps`
            over all scales is propagated (:func:`ppl.cam.propagate`); empty: no propagation.
        has_scale: whether values near 0 mean little evidence, as in class maps, which add up to logits. Such maps are
            divided by their maximum plus 1e-5, others by their maximum.
    """

    logits: Tensor
    size: tuple[int, int]
    maps: MapsOf
    evidence: MapsOf | None = None
    features: tuple[Tensor, ...] = ()
    has_scale: bool = True


CamMethod: TypeAlias = "Callable[[Classifier, Tensor], Reading]"
"""Make a reading of normalised images (B,3,H,W) with a classifier."""

METHODS: Registry[CamMethod] = Registry("CAM method")
"""The CAM methods by name."""


def register_method(name: str, method: CamMethod) -> None:
    """Add a CAM method; `generate(..., method=name)`, recipes and commands know the name from then on.

    Args:
        name: the name of the method.
        method: takes a :class:`ppl.cam.Classifier` and images (B,3,H,W), returns a :class:`ppl.cam.Reading`. For a
            method that weighs features by gradients, :func:`ppl.cam.gradient_method` makes it.

    Raises:
        PPLValueError: if there is another method of that name.

    Example:
        >>> from ppl.cam import METHODS, gradient_method, register_method
        >>> register_method("elementwise", gradient_method(lambda features, gradients: (features * gradients).sum(1)))
        >>> "elementwise" in METHODS
        True
    """
    METHODS.register(name, method)
