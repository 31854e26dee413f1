"""The file of a pixel classifier, and its probabilities of an image."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ppl.io.fingerprint import sha256
from ppl.refine.arrays import as_image
from ppl.refine.network_file import read_network, write_network
from ppl.refine.pixel_network import PixelClassifier

__all__ = ["PixelFunction", "load_pixel_classifier", "save_pixel_classifier"]

_KIND = "pixel classifier"
_HINT = "fit one with ppl.refine.pixels.fit_pixel_classifier"


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
) -> PixelFunction:
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
    file, place = Path(path), str(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    if backbone is not None:
        return _read(file, backbone, place)
    return _read_once(str(file.resolve()), file.stat().st_mtime_ns if file.is_file() else 0, place)


@lru_cache(maxsize=2)
def _read_once(path: str, _changed: int, device: str) -> PixelFunction:
    return _read(Path(path), None, device)


def _read(path: Path, backbone: nn.Module | None, device: str) -> PixelFunction:
    network = read_network(path, _KIND, PixelClassifier, backbone=backbone, hint=_HINT)
    return PixelFunction(network.to(device), path, sha256(path))


@dataclass(frozen=True, repr=False)
class PixelFunction:
    """A pixel classifier of a file as a function of images."""

    network: PixelClassifier
    path: Path
    sha256: str

    def __repr__(self) -> str:
        """Return the file's name and the hash of its content, which records of finished work keep."""
        return f"load_pixel_classifier({self.path.name!r}, sha256={self.sha256!r})"

    @torch.inference_mode()
    def __call__(self, image: Any) -> torch.Tensor:
        """Return the logits `(1 + K, h, w)` of an image `(H, W, 3)`, uint8 or in [0, 1]."""
        logits: torch.Tensor = self.network(image_tensor(image, self.network))[0]
        return logits


def image_tensor(image: Any, network: PixelClassifier) -> torch.Tensor:
    """Return an image `(H, W, 3)`, uint8 or in [0, 1], as the input `(1, 3, H, W)` of a network."""
    shape = tuple(image.shape)
    pixels = as_image(image, (shape[-3], shape[-2]) if len(shape) == 3 else (0, 0))
    return pixels.permute(2, 0, 1)[None].to(network.mean)
