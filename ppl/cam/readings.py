"""Results of one pass of a classifier: class maps, or a layer with its graph of gradients."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from torch import Tensor

__all__ = ["ClassMaps", "LayerReading", "MapsOf"]

MapsOf: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""From indices of images (n,) and classes (n,) to their maps (n,h,w), float32."""


@dataclass(frozen=True)
class ClassMaps:
    """Logits and class maps of a batch of images.

    Attributes:
        logits: (B,K).
        size: (h,w) of the class maps.
        maps: gives the class maps (n,h,w) of n pairs of image and class, before ReLU.
    """

    logits: Tensor
    size: tuple[int, int]
    maps: MapsOf


@dataclass(frozen=True)
class LayerReading:
    """The output of a layer as the root of a graph of gradients.

    Attributes:
        root: the output, of any layout.
        as_map: makes a map (B,C,h,w) of a tensor with the layout of the root.
        size: (h,w) of the layer's map.
        logits: (B,K), with their graph from the root.
        class_maps: the class maps with their graph from the root; None unless `read_layer` was asked for them.
        class_map_size: (h,w) of the class maps, or of the layer's map.
    """

    root: Tensor
    as_map: Callable[[Tensor], Tensor]
    size: tuple[int, int]
    logits: Tensor
    class_maps: MapsOf | None
    class_map_size: tuple[int, int]
