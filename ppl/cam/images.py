"""Images of every kind as the normalised tensors that the model was trained on."""

from __future__ import annotations

import os
import threading
from typing import Any, TypeAlias

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ppl.errors import PPLTypeError, PPLValueError
from ppl.io.images import read_image, to_rgb

__all__ = ["ImageLike", "check_images", "to_tensor"]

ImageLike: TypeAlias = Tensor | Image.Image | str | os.PathLike[str]
"""One image: a normalised tensor (3,H,W), a PIL image, or the path of an image file."""

_DECODING = threading.Lock()


def check_images(images: Any) -> None:
    """Raise PPLTypeError or PPLValueError for a single image where a batch or list of them is wanted."""
    if isinstance(images, (str, os.PathLike, Image.Image)):
        raise PPLTypeError(f"images must be a tensor (B,3,H,W) or a list, got {images!r}: write [{images!r}]")
    if isinstance(images, Tensor) and images.ndim != 4:
        raise PPLValueError(
            f"images must have shape (B,3,H,W), got {tuple(images.shape)}: add the batch axis or a list"
        )
    if not hasattr(images, "__iter__"):
        raise PPLTypeError(f"images must be a tensor (B,3,H,W) or a list, got {type(images).__name__}")


def to_tensor(image: ImageLike, data_config: dict[str, Any], number: int) -> Tensor:
    """One image as a normalised tensor.

    Args:
        image: a path or PIL image of any size and mode, which is normalised with the model's mean and standard
            deviation; or a tensor (3,H,W), which is taken to be normalised already. No image is resized.
        data_config: the model's "mean", "std" and "input_size".
        number: the image's place in the list, for messages.

    Returns:
        (3,H,W) floating point.

    Raises:
        PPLTypeError: for anything else, an integer tensor among them.
        PPLValueError: if the channels are not the model's, the image is empty, a PIL image holds values outside
            0..65535, or a file is no image.
        PPLFileNotFoundError: if there is no such file.

    Example:
        >>> config = {"mean": (0.5, 0.5, 0.5), "std": (0.25, 0.25, 0.25), "input_size": (3, 32, 32)}
        >>> to_tensor(Image.new("RGB", (1, 1), (255, 0, 255)), config, 0).flatten().tolist()
        [2.0, -2.0, 2.0]
    """
    if isinstance(image, (str, os.PathLike)):
        image = read_image(image)
    elif isinstance(image, Image.Image):
        image = _decoded(image, number)
    if isinstance(image, Image.Image):
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255
        mean, std = (torch.tensor(data_config[key])[:, None, None] for key in ("mean", "std"))
        image = (pixels - mean) / std
    if not isinstance(image, Tensor):
        raise PPLTypeError(f"image {number} must be a tensor, PIL image or path, got {type(image).__name__}")
    if not image.is_floating_point():
        raise PPLTypeError(
            f"image {number} is a tensor of {image.dtype}: normalise it, or pass a PIL image or path to have that done"
        )
    channels = data_config["input_size"][0]
    if image.ndim != 3 or image.shape[0] != channels or 0 in image.shape:
        raise PPLValueError(f"image {number} must have shape ({channels},H,W), got {tuple(image.shape)}")
    return image


def _decoded(image: Image.Image, number: int) -> Image.Image:
    """Upright RGB. PIL reads pixels on first use, and a list may hold an image twice: never in two threads at once."""
    try:
        with _DECODING:
            image.load()
        return to_rgb(image)
    except Exception as error:  # decoders raise OSError, SyntaxError, struct.error, ... on broken bytes
        raise PPLValueError(f"image {number} cannot be decoded: {error}; replace it or take it out") from error
