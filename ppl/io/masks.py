"""Masks as palette PNGs: the pixel is the class index, the colour is only for the eye."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from ppl.errors import PPLFileNotFoundError, PPLValueError
from ppl.io.files import atomic_write
from ppl.io.images import BadImageError

__all__ = ["mask_image", "palette", "read_mask", "write_mask"]


def palette(count: int = 256) -> npt.NDArray[np.uint8]:
    """The Pascal VOC colours: index 0 is black, 255 the pale one that marks "ignore".

    Bit *j* of every third bit of the index sets bit 7-*j* of red, green and blue, so that near indices get far colours.

    Args:
        count: how many colours, 1 to 256.

    Returns:
        (count, 3) uint8, RGB.

    Raises:
        PPLValueError: if `count` is out of range.

    Example:
        >>> palette(3).tolist()
        [[0, 0, 0], [128, 0, 0], [0, 128, 0]]
    """
    if not 1 <= count <= 256:
        raise PPLValueError(f"a palette has 1 to 256 colours, got {count}")
    index = np.arange(count)
    colours = np.zeros((count, 3), np.uint8)
    for channel in range(3):
        for bit in range(8):
            colours[:, channel] |= (((index >> (3 * bit + channel)) & 1) << (7 - bit)).astype(np.uint8)
    return colours


def read_mask(path: str | os.PathLike[str]) -> npt.NDArray[np.uint8]:
    """Read a mask of class indices from a palette or grey PNG.

    Args:
        path: the file.

    Returns:
        (H, W) uint8 class indices; 0 is background and 255 "ignore".

    Raises:
        PPLFileNotFoundError: if there is no such file.
        BadImageError: if it is truncated, an RGB picture, or holds indices above 255.

    Example:
        >>> import tempfile
        >>> folder = tempfile.TemporaryDirectory()
        >>> path = os.path.join(folder.name, "mask.png")
        >>> write_mask(path, np.array([[0, 1], [2, 255]]))
        >>> read_mask(path).tolist()
        [[0, 1], [2, 255]]
        >>> folder.cleanup()
    """
    try:
        with Image.open(path) as image:
            mode, values = image.mode, np.array(image)
    except FileNotFoundError as error:
        raise PPLFileNotFoundError(f"{path} does not exist; check the name and its extension") from error
    except Exception as error:
        raise BadImageError(f"{path} cannot be read as a mask: {error}; write it again") from error
    if values.ndim != 2:
        raise BadImageError(f"{path} is a {mode} picture, but a mask is a palette or grey PNG of class indices")
    low, high = (values.min(), values.max())
    if low < 0 or high > 255:
        raise BadImageError(f"{path} holds values in [{low}, {high}], but a mask's class indices end at 255")
    return values.astype(np.uint8)


def mask_image(mask: Any) -> Image.Image:
    """Class indices as a palette image with the Pascal VOC colours.

    Args:
        mask: (H, W) integers in 0..255, a NumPy array or a torch tensor on any device.

    Returns:
        An image of mode "P" whose pixels are the indices.

    Raises:
        PPLValueError: if the shape, type or range is another.

    Example:
        >>> mask_image(np.array([[0, 1]])).convert("RGB").getpixel((1, 0))
        (128, 0, 0)
    """
    values = np.asarray(mask.detach().cpu() if hasattr(mask, "detach") else mask)
    if values.ndim != 2 or values.size == 0:
        raise PPLValueError(f"a mask has shape (H, W), got {tuple(values.shape)}")
    if not (np.issubdtype(values.dtype, np.integer) or values.dtype == bool):
        raise PPLValueError(f"a mask holds integers, got {values.dtype}; take the argmax or cast it first")
    if int(values.min()) < 0 or int(values.max()) > 255:
        raise PPLValueError(f"a mask's class indices lie in 0..255, got [{values.min()}, {values.max()}]")
    image = Image.fromarray(values.astype(np.uint8))
    image.putpalette(palette().tobytes())
    return image


def write_mask(path: str | os.PathLike[str], mask: Any) -> None:
    """Write class indices as a palette PNG with the Pascal VOC colours, whole or not at all.

    Args:
        path: the file to write; missing parent folders are made.
        mask: (H, W) integers in 0..255, a NumPy array or a torch tensor on any device.

    Raises:
        PPLValueError: if the shape, type or range is another.
        FileWriteError: if the file cannot be written.
    """
    image = mask_image(mask)
    with atomic_write(path) as handle:
        image.save(handle, format="PNG")
