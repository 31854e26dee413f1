"""Affinities of an image by a trained affinity network, and the file of the network."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from ppl.errors import PPLTypeError
from ppl.refine.affinity_network import AffinityNetwork
from ppl.refine.network_file import NetworkKind, load_network, write_network

__all__ = ["AffinityMaps", "load_affinity", "predict_affinity", "save_affinity"]


@dataclass(frozen=True)
class AffinityMaps:
    """The affinities of one image, as edges or as features; exactly one of the two is given.

    Args:
        edges: `(h, w)` class boundaries in [0, 1].
        features: `(C, h, w)`.
        stride: pixels per cell.

    Example:
        >>> AffinityMaps(edges=torch.zeros(5, 6)).size
        (5, 6)
    """

    edges: torch.Tensor | None = None
    features: torch.Tensor | None = None
    stride: int = 4

    def __post_init__(self) -> None:
        if (self.edges is None) == (self.features is None):
            raise PPLTypeError("AffinityMaps takes either edges (h, w) or features (C, h, w)")

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in cells."""
        maps = self.edges if self.edges is not None else self.features
        assert maps is not None
        return maps.shape[-2], maps.shape[-1]


def predict_affinity(
    network: AffinityNetwork, image: npt.NDArray[np.generic] | torch.Tensor, *, flip: bool = True
) -> AffinityMaps:
    """Predict the class boundaries or features of one image for `random_walk`.

    Args:
        network: the network; its training or evaluation mode does not change.
        image: `(H, W, 3)`, uint8 or floating point in [0, 1].
        flip: average with the prediction for the mirrored image, as IRN does.

    Returns:
        The maps, on the network's device.

    Example:
        >>> maps = predict_affinity(AffinityNetwork("test_resnet"), np.zeros((70, 90, 3), np.uint8))
        >>> maps.edges.shape
        torch.Size([18, 23])
    """
    pixels = network.image_tensor(image)
    training = network.training
    network.eval()
    try:
        with torch.inference_mode():
            output = network(pixels)[0]
            if flip:
                output = (output + network(pixels.flip(-1))[0].flip(-1)) / 2
    finally:
        network.train(training)
    if network.kind == "edges":
        return AffinityMaps(edges=output[0].sigmoid(), stride=network.stride)
    return AffinityMaps(features=output, stride=network.stride)


_KIND = NetworkKind(
    name="affinity network",
    build=AffinityNetwork,
    predict=predict_affinity,
    loader="load_affinity",
    hint="train one with ppl.refine.affinity.fit_affinity",
)


def save_affinity(network: AffinityNetwork, path: str | os.PathLike[str]) -> None:
    """Write a network with its backbone as safetensors, whole or not at all.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_affinity(AffinityNetwork("test_resnet"), f"{folder}/affinity.safetensors")
        ...     load_affinity(f"{folder}/affinity.safetensors")(np.zeros((64, 64, 3), np.uint8)).size
        (16, 16)
    """
    write_network(network, path, _KIND)


def load_affinity(
    path: str | os.PathLike[str], *, backbone: nn.Module | None = None, device: str | torch.device | None = None
) -> Callable[[Any], AffinityMaps]:
    """Load a network as a function of images, which several threads may call at the same time.

    Args:
        path: a file that `save_affinity` wrote.
        backbone: a module of the same architecture, for a network whose backbone is not a timm model.
        device: device of the network; None: the GPU if there is one, else the CPU.

    Returns:
        A function `(H, W, 3) image -> AffinityMaps`.

    Raises:
        PPLFileNotFoundError: if the file is missing.
        PPLValueError: if the file is not an affinity network, or `backbone` is needed to load it.
    """
    return load_network(path, _KIND, backbone=backbone, device=device)
