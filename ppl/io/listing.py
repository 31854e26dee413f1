"""Which pictures a folder holds."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from ppl.errors import PPLFileNotFoundError, PPLValueError

__all__ = ["IMAGE_SUFFIXES", "list_images"]

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".gif", ".ppm", ".pgm", ".jp2")
"""Endings of the files that count as pictures, in any case."""


def list_images(folder: Path) -> dict[str, Path]:
    """The images in a folder and its sub-folders, by name without extension ("/" between folders).

    Hidden files and folders are passed over, links to folders are followed.

    Raises:
        PPLFileNotFoundError: if the folder is not there.
        PPLValueError: if two files differ in their extension alone, or a sub-folder cannot be read.
    """
    if not folder.is_dir():
        raise PPLFileNotFoundError(f"{folder} is not there; it should hold the images")
    images: dict[str, Path] = {}
    for path in _files(folder):
        if path.suffix.lower() not in IMAGE_SUFFIXES:
            continue
        stem = path.relative_to(folder).with_suffix("").as_posix()
        if stem in images:
            raise PPLValueError(
                f"{path} and {images[stem].name} differ in extension alone; rename or remove one of them"
            )
        images[stem] = path
    return images


def _files(folder: Path, within: tuple[Path, ...] = ()) -> Iterator[Path]:
    """All files at and below a folder, in the order of their names, hidden ones left out."""
    real = folder.resolve()
    if real in within:  # a link back to a folder that it lies in
        return
    try:
        with os.scandir(folder) as entries:
            shown = sorted((entry.name, entry.is_dir()) for entry in entries if not entry.name.startswith("."))
    except OSError as error:
        raise PPLValueError(f"{folder} cannot be read: {error.strerror}; check its permissions") from error
    for name, is_folder in shown:
        if is_folder:
            yield from _files(folder / name, (*within, real))
        else:
            yield folder / name
