"""Read pictures of any kind as upright 8-bit RGB."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from ppl.errors import PPLFileNotFoundError, PPLValueError
from ppl.io.archives import ArchivedFile, FilePath, open_binary

__all__ = ["DARK", "BadImageError", "ImageFile", "ImageInfo", "image_info", "image_size", "read_image", "to_rgb"]

DARK = (1 << 14) - 1
"""Largest value of 16-bit pictures that come out at less than a quarter of the full brightness."""

_LIMIT = "PPL_MAX_PIXELS"
_TURNED = (5, 6, 7, 8)  # EXIF orientations that swap width and height
_WIDE_MODES = ("I", "F")  # prefixes of Pillow's modes with more than 8 bits: "I", "I;16", "I;16B", "F"


class BadImageError(PPLValueError):
    """A file exists but cannot be used as a picture or mask."""


@dataclass(frozen=True)
class ImageFile(os.PathLike[str]):
    """A path with the range of its 16-bit grey values; every function that reads images takes one as a path.

    Attributes:
        path: image file.
        value_range: value that becomes white, see `read_image`. With None as with a number, no function warns that the
            picture is dark.
    """

    path: FilePath
    value_range: int | None = None

    def __fspath__(self) -> str:
        return os.fspath(self.path)

    def __str__(self) -> str:
        return str(self.path)


def read_image(
    path: str | os.PathLike[str], *, at_least: int | tuple[int, int] | None = None, value_range: int | None = None
) -> Image.Image:
    """Read a picture of any kind as upright 8-bit RGB.

    The EXIF orientation is applied. Grey, palette and CMYK pictures are converted to RGB, transparent pixels are laid
    over white, and of an animation the first frame is read.

    Args:
        path: image file, or an `ImageFile`, which brings its `value_range`.
        at_least: size below which the picture is not needed, as the longer side or as (height, width). A JPEG is then
            decoded at 1/2, 1/4 or 1/8 of its size as long as it stays at least that large: several times faster, with
            pixels slightly different from those of a full decode. Other formats ignore the argument.
        value_range: value of 16-bit grey that becomes white; 4095 for a 12-bit camera. None: 65535, and for floats the
            first of 1, 255 and 65535 that no pixel exceeds. Pictures of 8 bits ignore the argument.

    Returns:
        A loaded RGB image that no longer depends on the file.

    Raises:
        PPLFileNotFoundError: if the file does not exist.
        BadImageError: if the file is truncated, is not a picture, or holds values above `value_range`.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> folder = tempfile.TemporaryDirectory()
        >>> path = Path(folder.name) / "grey16.png"
        >>> Image.fromarray(np.full((2, 3), 4095, np.uint16)).save(path)
        >>> read_image(path).getpixel((0, 0)), read_image(path, value_range=4095).getpixel((0, 0))
        ((16, 16, 16), (255, 255, 255))
        >>> folder.cleanup()
    """
    if value_range is None and isinstance(path, ImageFile):
        value_range = path.value_range
    try:
        with _open(path) as image:
            if at_least is not None:
                image.draft(None, _draft_size(image, at_least))
            image.load()
            return to_rgb(image, value_range=value_range)
    except (PPLFileNotFoundError, BadImageError):
        raise
    except Exception as error:  # decoders raise OSError, SyntaxError, struct.error, ValueError, ... on broken bytes
        raise BadImageError(f"{path} cannot be read as an image: {error}; replace it or take it out") from error


def image_size(path: str | os.PathLike[str]) -> tuple[int, int]:
    """Return (height, width) of the upright picture; only the file's header is read.

    Raises:
        PPLFileNotFoundError: if the file does not exist.
        BadImageError: if the file is not a picture.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> folder = tempfile.TemporaryDirectory()
        >>> Image.new("L", (3, 2)).save(Path(folder.name) / "a.png")
        >>> image_size(Path(folder.name) / "a.png")
        (2, 3)
        >>> folder.cleanup()
    """
    return image_info(path).size


class ImageInfo(NamedTuple):
    """Properties of a picture file.

    Attributes:
        size: (height, width) of the upright picture.
        orientation: EXIF orientation, 1 to 8; 1 means that the stored pixels are upright.
        largest: largest value of a grey picture with 16 or 32 bits per pixel; None for every other picture.
        pages: pages of a TIFF, of which `read_image` reads the first; smaller copies of that page do not count.
    """

    size: tuple[int, int]
    orientation: int
    largest: int | None
    pages: int = 1


def image_info(path: str | os.PathLike[str]) -> ImageInfo:
    """Return the properties of a picture; pixels are read only if they have 16 or 32 bits.

    Raises:
        PPLFileNotFoundError: if the file does not exist.
        BadImageError: if the file is not a picture.
    """
    with _open(path) as image:
        width, height = _stored_size(image)
        orientation = _orientation(image)
        largest = int(np.asarray(image).max()) if image.mode.startswith("I") else None
        size = (width, height) if orientation in _TURNED else (height, width)
        return ImageInfo(size, orientation, largest, _pages(image))


def to_rgb(image: Image.Image, *, value_range: int | None = None) -> Image.Image:
    """Convert a picture in memory to upright 8-bit RGB, as :func:`read_image` does for a file.

    Args:
        image: picture of any mode, with or without an EXIF orientation.
        value_range: see `read_image`.

    Returns:
        A new image.

    Raises:
        ValueError: if a value lies outside 0..65535, or above `value_range`.

    Example:
        >>> to_rgb(Image.new("I;16", (1, 1), 65535)).getpixel((0, 0))
        (255, 255, 255)
    """
    image = ImageOps.exif_transpose(image) if _orientation(image) != 1 else image
    if image.mode == "RGB" and "transparency" not in image.info:
        return image.copy()
    if image.mode.startswith(_WIDE_MODES):  # Pillow's own conversion would clip the values
        return Image.fromarray(_to_8bit(np.asarray(image), value_range)).convert("RGB")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")


def _open(path: str | os.PathLike[str]) -> Image.Image:
    source = path.path if isinstance(path, ImageFile) else path
    raise_limit()
    try:
        return Image.open(open_binary(source) if isinstance(source, ArchivedFile) else source)
    except PPLFileNotFoundError:
        raise
    except FileNotFoundError as error:
        raise PPLFileNotFoundError(f"{path} does not exist; check the name and its extension") from error
    except UnidentifiedImageError as error:
        what = "is not an image of a known kind"
        if os.fspath(path).lower().endswith((".tif", ".tiff")):
            what += " (Pillow reads TIFFs of 1, 3 or 4 bands)"
        raise BadImageError(f"{path} {what}; replace it or take it out") from error
    except Image.DecompressionBombError as error:  # the file itself may be sound
        raise BadImageError(too_many_pixels(path, error)) from error
    except Exception as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise BadImageError(f"{path} cannot be opened as an image: {reason}; mend it or take it out") from error


def too_many_pixels(path: str | os.PathLike[str], error: Exception) -> str:
    """Return the message for a picture or mask above Pillow's limit on the number of pixels."""
    return (
        f"{path}: {str(error).rstrip('.')}; if the file is sound, set the environment variable {_LIMIT} to a number of "
        "pixels that you allow, or PIL.Image.MAX_IMAGE_PIXELS in Python; or cut the picture into parts"
    )


@cache
def raise_limit() -> None:
    """Let Pillow read pictures of as many pixels as the user's environment allows; worker processes inherit it."""
    allowed = os.environ.get(_LIMIT)
    if allowed is None:
        return
    try:
        Image.MAX_IMAGE_PIXELS = int(float(allowed))
    except (ValueError, OverflowError) as error:
        raise PPLValueError(f"{_LIMIT}={allowed!r} is no number of pixels; set it to 1e9 for example") from error


def _stored_size(image: Image.Image) -> tuple[int, int]:
    """Return width and height before rotation; of TIFFs, some versions of Pillow rotate on opening."""
    tags = getattr(image, "tag_v2", {})
    return tags.get(ExifTags.Base.ImageWidth, image.width), tags.get(ExifTags.Base.ImageLength, image.height)


def _pages(image: Image.Image) -> int:
    if image.format != "TIFF":
        return 1
    size = image.size
    try:
        image.seek(1)
    except Exception:  # there is no second page, or only a broken one
        return 1
    return int(getattr(image, "n_frames", 1)) if image.size == size else 1


def _draft_size(image: Image.Image, at_least: int | tuple[int, int]) -> tuple[int, int]:
    if isinstance(at_least, int):
        ratio = at_least / max(image.size)
        return math.ceil(image.width * ratio), math.ceil(image.height * ratio)
    return at_least if _orientation(image) in _TURNED else at_least[::-1]


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # a broken EXIF block raises many types; it says nothing about rotation, and the pixels are fine
        return 1


def _to_8bit(values: npt.NDArray[Any], value_range: int | None) -> npt.NDArray[np.uint8]:
    low, high = float(values.min()), float(values.max())
    if not (low >= 0 and high <= 65535):  # written so that NaN fails too
        raise ValueError(f"its values lie in [{low:g}, {high:g}], outside 0..65535")
    if value_range is not None and high > value_range:
        raise ValueError(f"its values reach {high:g}, above value_range={value_range}")
    top = float(value_range or 65535)
    if value_range is None and np.issubdtype(values.dtype, np.floating):
        top = next(t for t in (1.0, 255.0, 65535.0) if high <= t)
    return np.round(values * (255 / top)).astype(np.uint8)
