"""Read and write masks as palette PNGs: pixels are class indices, colours are for display only."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from ppl.errors import PPLFileNotFoundError, PPLValueError
from ppl.io.archives import ArchivedFile, open_binary
from ppl.io.files import atomic_write
from ppl.io.images import BadImageError, raise_limit, too_many_pixels
from ppl.io.listing import counted

__all__ = ["mask_image", "palette", "read_color_mask", "read_mask", "write_mask"]


def palette(count: int = 256) -> npt.NDArray[np.uint8]:
    """Return the Pascal VOC colours: index 0 is black, 255 is the pale colour that marks "ignore".

    Bits 0, 3 and 6 of the index are the highest bits of red, bits 1, 4 and 7 those of green, bits 2 and 5 those of
    blue; near indices therefore get distant colours.

    Args:
        count: number of colours, 1 to 256.

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
    """Read a mask of class indices from a palette or grey picture in a lossless format.

    A colour picture whose three channels are equal counts as grey, and an opaque alpha channel as none.

    Args:
        path: mask file.

    Returns:
        (H, W) uint8 class indices; 0 is the background, 255 is "ignore".

    Raises:
        PPLFileNotFoundError: if the file does not exist.
        BadImageError: if the file is truncated, is a colour picture, has transparent pixels, or holds values above 255.

    Example:
        >>> import tempfile
        >>> folder = tempfile.TemporaryDirectory()
        >>> path = os.path.join(folder.name, "mask.png")
        >>> write_mask(path, np.array([[0, 1], [2, 255]]))
        >>> read_mask(path).tolist()
        [[0, 1], [2, 255]]
        >>> folder.cleanup()
    """
    mode, values = _pixels(path, None)
    if mode in ("LA", "RGBA"):
        if (values[..., -1] < 255).any():
            what = f"{path} has transparent pixels, which mean no class"
            raise BadImageError(f"{what}; write class indices as a palette or grey PNG without transparency")
        mode, values = mode[:-1], values[..., :-1] if mode == "RGBA" else values[..., 0]
    if mode == "RGB" and (values == values[..., :1]).all():  # grey, stored three times, as OpenCV often does
        values = values[..., 0]
    if values.ndim != 2:
        what = f"{path} is a {mode} picture, but a mask is a palette or grey PNG of class indices"
        raise BadImageError(f"{what}; if its colours mean classes, name them in labelmap.txt")
    low, high = (values.min(), values.max())
    if low < 0 or high > 255:
        raise BadImageError(f"{path} holds values in [{low}, {high}], but a mask's class indices end at 255")
    return values.astype(np.uint8)


def read_color_mask(path: str | os.PathLike[str], colors: Mapping[tuple[int, int, int], int]) -> npt.NDArray[np.uint8]:
    """Read a mask whose colours mean classes.

    Args:
        path: mask file of any mode.
        colors: class index by colour (red, green, blue).

    Returns:
        (H, W) uint8 class indices.

    Raises:
        PPLFileNotFoundError: if the file does not exist.
        BadImageError: if the file is truncated or holds a colour that `colors` lacks.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = os.path.join(folder, "mask.png")
        ...     Image.new("RGB", (2, 1), (250, 50, 83)).save(path)
        ...     read_color_mask(path, {(0, 0, 0): 0, (250, 50, 83): 1}).tolist()
        [[1, 1]]
    """
    _, values = _pixels(path, "RGB")
    codes = values.astype(np.int32) @ np.array([1 << 16, 1 << 8, 1], np.int32)
    found, position = np.unique(codes, return_inverse=True)
    indices = {(red << 16) + (green << 8) + blue: index for (red, green, blue), index in colors.items()}
    unknown = [code for code in found.tolist() if code not in indices]
    if unknown:
        code = unknown[0]
        what = f"{path} holds {counted(len(unknown), 'colour')} without a class"
        first = f"({code >> 16}, {code >> 8 & 255}, {code & 255})"
        raise BadImageError(f"{what}, {first} first; complete the colour table, and store masks without smoothed edges")
    return np.array([indices[code] for code in found.tolist()], np.uint8)[position].reshape(codes.shape)


def _pixels(path: str | os.PathLike[str], mode: str | None) -> tuple[str, npt.NDArray[Any]]:
    """Return the mode of a mask file and its values, converted to `mode` if one is given."""
    raise_limit()
    try:
        with Image.open(open_binary(path) if isinstance(path, ArchivedFile) else path) as image:
            return image.mode, np.array(image if mode is None else image.convert(mode))
    except FileNotFoundError as error:
        raise PPLFileNotFoundError(f"{path} does not exist; check the name and its extension") from error
    except Image.DecompressionBombError as error:
        raise BadImageError(too_many_pixels(path, error)) from error
    except Exception as error:  # decoders raise OSError, SyntaxError, struct.error, ValueError, ... on broken bytes
        raise BadImageError(f"{path} cannot be read as a mask: {error}; write it again") from error


def mask_image(mask: Any) -> Image.Image:
    """Convert class indices to a palette image with the Pascal VOC colours.

    Args:
        mask: (H, W) integers in 0..255, a NumPy array or a torch tensor on any device.

    Returns:
        An image of mode "P" whose pixels are the indices.

    Raises:
        PPLValueError: if `mask` has another shape, type or range.

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
    """Write class indices as a palette PNG with the Pascal VOC colours; the file appears whole or not at all.

    Args:
        path: file to write; missing parent folders are made.
        mask: (H, W) integers in 0..255, a NumPy array or a torch tensor on any device.

    Raises:
        PPLValueError: if `mask` has another shape, type or range.
        FileWriteError: if the file cannot be written.
    """
    image = mask_image(mask)
    with atomic_write(path) as handle:
        image.save(handle, format="PNG")
