"""Which pictures and masks a folder holds, and how names are compared."""

from __future__ import annotations

import os
import unicodedata
import warnings
from collections.abc import Collection, Iterator
from pathlib import Path

from ppl.errors import PPLFileNotFoundError, PPLValueError

__all__ = ["IMAGE_SUFFIXES", "list_files", "list_images", "list_masks", "normalize_name"]

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".gif", ".ppm", ".pgm", ".jp2")
"""Endings of the files that count as pictures, in any case."""


def normalize_name(name: str) -> str:
    r"""The name as it is compared: macOS stores an accent behind its letter, nearly all else the two as one.

    Example:
        >>> normalize_name("cafe\u0301") == "caf\u00e9"
        True
    """
    return unicodedata.normalize("NFC", name)


def list_images(folder: Path) -> dict[str, Path]:
    """The images in a folder and its sub-folders, by name without extension ("/" between folders, NFC).

    Hidden files and folders are passed over, links to folders are followed.

    Raises:
        PPLFileNotFoundError: if the folder is not there.
        PPLValueError: if two files differ in their extension alone, or a sub-folder cannot be read.
    """
    if not folder.is_dir():
        raise PPLFileNotFoundError(f"{folder} is not there; it should hold the images")
    return _by_id(list_files(folder), IMAGE_SUFFIXES)


def list_masks(folder: Path, images: Collection[str]) -> dict[str, Path]:
    """The masks in a folder and its sub-folders: `.png` in any case, by name without extension (NFC).

    A folder that is not there holds none. It is a warning if it holds files and none is named after an image.

    Args:
        folder: of the masks.
        images: names of the images of all splits, without extension.

    Raises:
        PPLValueError: if two files differ in their extension alone, or a sub-folder cannot be read.
    """
    files = list_files(folder) if folder.is_dir() else {}
    masks = _by_id(files, (".png",))
    if files and masks.keys().isdisjoint(images):
        warnings.warn(
            f"{folder} holds {len(files)} files and none is named after an image: scores need NAME.png for every image "
            "NAME",
            stacklevel=3,
        )
    return masks


def list_files(folder: Path) -> dict[str, Path]:
    """The files in a folder and its sub-folders by name ("/" between folders, NFC); hidden ones are passed over.

    Raises:
        PPLValueError: if the folder or one below it cannot be read, or two names are the same in NFC.
    """
    files: dict[str, Path] = {}
    for path in _files(folder):
        name = normalize_name(path.relative_to(folder).as_posix())
        if name in files:
            raise PPLValueError(
                f"{path} is there twice, with its accents stored in two ways; rename or remove one of them"
            )
        files[name] = path
    return files


def _by_id(files: dict[str, Path], suffixes: tuple[str, ...]) -> dict[str, Path]:
    """Those files that have one of the extensions, by name without it."""
    found: dict[str, Path] = {}
    for name, path in files.items():
        if path.suffix.lower() not in suffixes:
            continue
        image_id = name.removesuffix(path.suffix)
        if image_id in found:
            raise PPLValueError(
                f"{path} and {found[image_id].name} differ in extension alone; rename or remove one of them"
            )
        found[image_id] = path
    return found


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
