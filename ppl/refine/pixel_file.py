"""The file of a pixel classifier, and its logits of an image."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from ppl.refine.network_file import NetworkKind, load_network, write_network
from ppl.refine.pixel_network import PixelClassifier

__all__ = ["load_pixel_classifier", "predict_pixels", "save_pixel_classifier"]


@torch.inference_mode()
def predict_pixels(network: PixelClassifier, image: Any) -> torch.Tensor:
    """Return the logits `(1 + K, h, w)` of an image `(H, W, 3)`, uint8 or in [0, 1]."""
    logits: torch.Tensor = network(network.image_tensor(image))[0]
    return logits


_KIND = NetworkKind(
    name="pixel classifier",
    build=PixelClassifier,
    predict=predict_pixels,
    loader="load_pixel_classifier",
    hint="fit one with ppl.refine.pixels.fit_pixel_classifier",
)


def save_pixel_classifier(network: PixelClassifier, path: str | os.PathLike[str]) -> None:
    """Write a classifier with its backbone as safetensors, whole or not at all.

    Example:
        >>> import tempfile
        >>> import numpy as np
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_pixel_classifier(PixelClassifier("test_resnet", 2), f"{folder}/pixels.safetensors")
        ...     load_pixel_classifier(f"{folder}/pixels.safetensors")(np.zeros((64, 64, 3), np.uint8)).shape
        torch.Size([3, 8, 8])
    """
    write_network(network, path, _KIND)


def load_pixel_classifier(
    path: str | os.PathLike[str], *, backbone: nn.Module | None = None, device: str | torch.device | None = None
) -> Callable[[Any], torch.Tensor]:
    """Load a classifier as a function of images, which several threads may call at the same time.

    Args:
        path: a file that `save_pixel_classifier` wrote.
        backbone: a module of the same architecture, for a network whose backbone is not a timm model.
        device: device of the network; None: the GPU if there is one, else the CPU.

    Returns:
        A function from an image `(H, W, 3)` to logits `(1 + K, h, w)`.

    Raises:
        PPLFileNotFoundError: if the file is missing.
        PPLValueError: if the file holds no pixel classifier, or `backbone` is needed to build it.
    """
    return load_network(path, _KIND, backbone=backbone, device=device)
