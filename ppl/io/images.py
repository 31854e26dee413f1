"""Pictures of any kind as upright 8-bit RGB."""

from __future__ import annotations

import math
import os
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from ppl.errors import PPLFileNotFoundError, PPLValueError

__all__ = ["BadImageError", "image_size", "read_image", "to_rgb"]

_TURNED = (5, 6, 7, 8)  # EXIF orientations that swap width and height


class BadImageError(PPLValueError):
    """A file that is there but cannot be used as the picture or mask that it should be."""


def read_image(path: str | os.PathLike[str], *, at_least: int | tuple[int, int] | None = None) -> Image.Image:
    """Read a picture as upright 8-bit RGB, whatever it is stored as.

    EXIF rotation is applied; grey, palette and CMYK pictures become RGB; transparent pixels are laid over white;
    16-bit grey is scaled by its full range (65535 becomes 255), floats by the first of 1, 255 and 65535 that holds
    them. Of an animation, the first frame.

    Args:
        path: the file.
        at_least: the size below which the picture is not needed, as the longer side or as (height, width). A JPEG is
            then decoded at 1/2, 1/4 or 1/8 of its size as long as it stays at least that large: several times faster,
            with pixels slightly different from those of a full decode. Other formats ignore it.

    Returns:
        A loaded RGB image, not tied to the file any more.

    Raises:
        PPLFileNotFoundError: if there is no such file.
        BadImageError: if it is truncated or not a picture; the message names the file.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> folder = tempfile.TemporaryDirectory()
        >>> Image.fromarray(np.full((2, 3), 65535, np.uint16)).save(Path(folder.name) / "grey16.png")
        >>> image = read_image(Path(folder.name) / "grey16.png")
        >>> image.mode, image.size, image.getpixel((0, 0))
        ('RGB', (3, 2), (255, 255, 255))
        >>> folder.cleanup()
    """
    try:
        with _open(path) as image:
            if at_least is not None:
                image.draft(None, _draft_size(image, at_least))
            image.load()
            return to_rgb(image)
    except (PPLFileNotFoundError, BadImageError):
        raise
    except Exception as error:  # decoders raise OSError, SyntaxError, struct.error, ValueError, ... on broken bytes
        raise BadImageError(f"{path} cannot be read as an image: {error}; replace it or take it out") from error


def image_size(path: str | os.PathLike[str]) -> tuple[int, int]:
    """The (height, width) of the upright picture, from the file's header alone.

    Raises:
        PPLFileNotFoundError: if there is no such file.
        BadImageError: if it is not a picture.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> folder = tempfile.TemporaryDirectory()
        >>> Image.new("L", (3, 2)).save(Path(folder.name) / "a.png")
        >>> image_size(Path(folder.name) / "a.png")
        (2, 3)
        >>> folder.cleanup()
    """
    with _open(path) as image:
        width, height = _stored_size(image)
        return (width, height) if _orientation(image) in _TURNED else (height, width)


def to_rgb(image: Image.Image) -> Image.Image:
    """A picture that is in memory already as :func:`read_image` would give it: upright 8-bit RGB.

    Args:
        image: of any mode, with or without an EXIF rotation.

    Returns:
        A new image.

    Raises:
        ValueError: if it holds values outside 0..65535.

    Example:
        >>> to_rgb(Image.new("I;16", (1, 1), 65535)).getpixel((0, 0))
        (255, 255, 255)
    """
    return _convert(_upright(image))


def _open(path: str | os.PathLike[str]) -> Image.Image:
    try:
        return Image.open(path)
    except FileNotFoundError as error:
        raise PPLFileNotFoundError(f"{path} does not exist; check the name and its extension") from error
    except UnidentifiedImageError as error:
        raise BadImageError(f"{path} is not an image of a known kind; replace it or take it out") from error
    except Image.DecompressionBombError as error:  # a sound file may be that large
        raise BadImageError(
            f"{path}: {str(error).rstrip('.')}; shrink it, or raise PIL.Image.MAX_IMAGE_PIXELS"
        ) from error
    except Exception as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise BadImageError(f"{path} cannot be opened as an image: {reason}; mend it or take it out") from error


def _stored_size(image: Image.Image) -> tuple[int, int]:
    """Width and height before any rotation; of a TIFF's, some versions of Pillow have applied it already."""
    tags = getattr(image, "tag_v2", {})
    return tags.get(ExifTags.Base.ImageWidth, image.width), tags.get(ExifTags.Base.ImageLength, image.height)


def _draft_size(image: Image.Image, at_least: int | tuple[int, int]) -> tuple[int, int]:
    if isinstance(at_least, int):
        ratio = at_least / max(image.size)
        return math.ceil(image.width * ratio), math.ceil(image.height * ratio)
    return at_least if _orientation(image) in _TURNED else at_least[::-1]


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # a broken EXIF block says nothing about rotation, and the pixels are fine
        return 1


def _upright(image: Image.Image) -> Image.Image:
    return ImageOps.exif_transpose(image) if _orientation(image) != 1 else image


def _convert(image: Image.Image) -> Image.Image:
    if image.mode == "RGB" and "transparency" not in image.info:
        return image.copy()
    if image.mode.startswith(("I", "F")):  # wider than 8 bits: PIL's own conversion would clip
        return Image.fromarray(_to_8bit(np.asarray(image))).convert("RGB")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")


def _to_8bit(values: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    low, high = float(values.min()), float(values.max())
    if not (low >= 0 and high <= 65535):  # written so that NaN fails too
        raise ValueError(f"its values lie in [{low:g}, {high:g}], outside 0..65535")
    top = 65535.0
    if np.issubdtype(values.dtype, np.floating):
        top = next(t for t in (1.0, 255.0, 65535.0) if high <= t)
    return np.round(values * (255 / top)).astype(np.uint8)
