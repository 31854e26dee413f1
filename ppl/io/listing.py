"""Which pictures a folder holds."""

from __future__ import annotations

from pathlib import Path

from ppl.errors import PPLFileNotFoundError, PPLValueError

__all__ = ["IMAGE_SUFFIXES", "list_images"]

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".gif", ".ppm", ".pgm", ".jp2")
"""Endings of the files that count as pictures, in any case."""


def list_images(folder: Path) -> dict[str, Path]:
    """The images in a folder and its sub-folders, by name without extension ("/" between folders).

    Raises:
        PPLFileNotFoundError: if the folder is not there.
        PPLValueError: if two files differ in their extension alone.
    """
    if not folder.is_dir():
        raise PPLFileNotFoundError(f"{folder} is not there; it should hold the images")
    images: dict[str, Path] = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() not in IMAGE_SUFFIXES or path.name.startswith("."):
            continue
        stem = path.relative_to(folder).with_suffix("").as_posix()
        if stem in images:
            raise PPLValueError(
                f"{path} and {images[stem].name} differ in extension alone; rename or remove one of them"
            )
        images[stem] = path
    return images
