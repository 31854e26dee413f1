"""List the pictures and masks of a folder by image id."""

from __future__ import annotations

import os
import posixpath
import unicodedata
import warnings
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar, cast

from PIL import Image

from ppl.errors import PPLFileNotFoundError, PPLValueError
from ppl.io.archives import ARCHIVE_SUFFIX, FilePath, list_archive

__all__ = [
    "IMAGE_SUFFIXES",
    "MASK_ENDINGS",
    "Paths",
    "by_image_id",
    "counted",
    "examples",
    "list_archived",
    "list_files",
    "list_image_files",
    "list_images",
    "list_masks",
    "normalize_name",
    "without_suffix",
]

IMAGE_SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".bmp", ".dib", ".tif", ".tiff", ".webp", ".gif"),
    *(".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".j2k", ".tga", ".avif", ".heic", ".heif", ".jxl"),
)
"""Endings of the files that count as pictures, in any case. Pillow may lack the decoder of some: see `list_images`."""

MASK_ENDINGS = (".mask.png", ".seg.png")
"""Endings of the masks in archives."""

_LOSSLESS_SUFFIXES = (".png", ".apng", ".bmp", ".dib", ".tif", ".tiff", ".gif", ".ppm", ".pgm", ".pbm", ".pnm", ".tga")


_File = TypeVar("_File", bound=FilePath)


class Paths(Mapping[str, _File]):
    """Files of one folder by any kind of name; paths are made when asked for, since they take half a kilobyte each.

    Args:
        folder: the folder.
        files: by name, the path below the folder as text, or the file itself.
    """

    def __init__(self, folder: Path, files: Mapping[str, str | _File]) -> None:
        self._folder, self._files = folder, files

    def __getitem__(self, name: str) -> _File:
        file = self._files[name]
        return cast(_File, self._folder / file) if isinstance(file, str) else file

    def __contains__(self, name: object) -> bool:
        return name in self._files

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)

    def renamed(self, names: Iterable[tuple[str, str]]) -> Paths[_File]:
        """Return some of the files by other names.

        Args:
            names: the new and the old name of each file.
        """
        return Paths(self._folder, {new: self._files[old] for new, old in names})


def normalize_name(name: str) -> str:
    r"""Return a file name or class name in Unicode's form NFC, in which all names are compared.

    macOS stores an accent as a character of its own (NFD), other systems store the accented letter (NFC).

    Example:
        >>> normalize_name("cafe\u0301") == "caf\u00e9"
        True
    """
    return unicodedata.normalize("NFC", name)


def without_suffix(name: str) -> str:
    """Return a file name without the ending of a picture; other dots belong to the name.

    Example:
        >>> without_suffix("beach.v2.JPG"), without_suffix("beach.v2")
        ('beach.v2', 'beach.v2')
    """
    return name[: name.rindex(".")] if name.lower().endswith(IMAGE_SUFFIXES) else name


def examples(names: Iterable[str], count: int = 3) -> str:
    """Return the first names of many for a message.

    Example:
        >>> examples(["a", "b", "c", "d", "e"])
        "'a', 'b', 'c' and 2 more"
    """
    names = list(names)
    shown = ", ".join(map(repr, names[:count]))
    return f"{shown} and {len(names) - count} more" if len(names) > count else shown


def counted(number: int, noun: str) -> str:
    """Return a number with its noun for a message.

    Example:
        >>> counted(1, "mask"), counted(3, "mask")
        ('1 mask', '3 masks')
    """
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def list_images(folder: Path) -> dict[str, FilePath]:
    """List the pictures in a folder and its sub-folders by image id.

    See `list_image_files` for the files that are left out.

    Returns:
        Path by image id: the path below `folder` without extension, with "/" between folders, in NFC.

    Raises:
        PPLFileNotFoundError: if the folder does not exist.
        PPLValueError: if two files differ only in their extension, or a sub-folder cannot be read.
    """
    return dict(by_image_id(list_image_files(folder)))


def list_image_files(folder: Path) -> Paths[FilePath]:
    """List the pictures in a folder and its sub-folders by file name; of a single file, that file.

    Where there are tar archives and no pictures, the pictures in the archives are listed: a file `cats/a.jpg` in
    `train-000.tar` as `train-000/cats/a.jpg`, so that results lie in one folder per archive. Masks in archives
    (`a.mask.png`, `a.seg.png`) are no pictures.

    Hidden files and folders are left out; links to folders are followed. Pictures of a kind that Pillow cannot read
    here (`.heic` without the package pillow-heif, for example) are left out with one warning that counts and names
    them.

    Returns:
        Path by the path below `folder`, with "/" between folders, in NFC.

    Raises:
        PPLFileNotFoundError: if the folder does not exist.
        PPLValueError: if a sub-folder cannot be read.
    """
    if not folder.exists():
        raise PPLFileNotFoundError(f"{folder} is not there; it should hold the images")
    files: Paths[FilePath] = Paths(folder.parent, {normalize_name(folder.name): folder.name})
    if not folder.is_file():
        files = list_files(folder)
    archives = _with_suffix(files, (ARCHIVE_SUFFIX,))
    if archives and not _with_suffix(files, IMAGE_SUFFIXES):
        found = list_archived(archives)
        files = Paths(folder, {name: file for name, file in found.items() if not name.lower().endswith(MASK_ENDINGS)})
    readable = tuple(suffix for suffix in IMAGE_SUFFIXES if suffix in Image.registered_extensions())
    unreadable = _with_suffix(files, set(IMAGE_SUFFIXES).difference(readable))
    if unreadable:
        warnings.warn(
            f"{folder}: Pillow cannot read {counted(len(unreadable), 'file')}, left out: {examples(unreadable)}; "
            "convert to PNG or JPEG, or register a plugin (pillow-heif for .heic)",
            stacklevel=3,
        )
    return _with_suffix(files, readable)


def list_masks(folder: Path, images: Collection[str]) -> Paths[Path]:
    """List the masks in a folder and its sub-folders: pictures in a lossless format.

    A folder that does not exist holds no mask. One warning counts and names the files that are no masks because their
    format is lossy or unknown, another the masks that are not named after an image.

    Returns:
        Path by image id.

    Raises:
        PPLValueError: if two files differ only in their extension, or a sub-folder cannot be read.
    """
    files: Paths[Path] = list_files(folder) if folder.is_dir() else Paths(folder, {})
    masks = by_image_id(_with_suffix(files, _LOSSLESS_SUFFIXES))
    lossy = _with_suffix(files, set(IMAGE_SUFFIXES).difference(_LOSSLESS_SUFFIXES))
    if lossy:
        warnings.warn(
            f"{folder}: {counted(len(lossy), 'mask')} left out, because the format is lossy and changes class indices: "
            f"{examples(lossy)}; draw again as PNG",
            stacklevel=3,
        )
    unmatched = [name for name in masks if name not in images]
    if files and not lossy and len(unmatched) == len(masks):
        warnings.warn(
            f"{folder} holds {len(files)} files and none is named after an image: scores need NAME.png for every image "
            f"NAME, and here are {examples(files)}",
            stacklevel=3,
        )
    elif unmatched:
        warnings.warn(
            f"{folder}: {len(unmatched)} of {counted(len(masks), 'mask')} left out, because no image has the name: "
            f"{examples(unmatched)}",
            stacklevel=3,
        )
    return masks


def list_files(folder: Path) -> Paths[Any]:
    """List the files in a folder and its sub-folders, without hidden ones.

    Returns:
        Path by the path below `folder`, with "/" between folders, in NFC.

    Raises:
        PPLValueError: if the folder or a sub-folder cannot be read, two names are the same in NFC, or a name is not
            valid Unicode.
    """
    files: dict[str, str] = {}
    for path in _files(folder):
        name = normalize_name(path)
        if name in files:
            raise PPLValueError(
                f"{folder / path} is there twice, with its accents stored in two ways; rename or remove one of them"
            )
        if not name.isprintable() and any("\ud800" <= character <= "\udfff" for character in name):
            raise PPLValueError(f"{folder} holds a file whose name is not valid UTF-8: {name!a}; rename the file")
        files[name] = path
    return Paths(folder, files)


def _with_suffix(files: Paths[_File], suffixes: Collection[str]) -> Paths[_File]:
    return files.renamed((name, name) for name in files if posixpath.splitext(name)[1].lower() in suffixes)


def list_archived(archives: Mapping[str, FilePath]) -> dict[str, FilePath]:
    """List the files in tar archives by the name of the archive without its ending, a "/" and the file's name.

    Args:
        archives: the archives by name.

    Raises:
        PPLValueError: if an archive is compressed, or is no tar archive.
    """
    return {
        normalize_name(f"{name.removesuffix(path.suffix)}/{inner}"): file
        for name, path in archives.items()
        for inner, file in list_archive(Path(path)).items()
    }


def by_image_id(files: Paths[_File]) -> Paths[_File]:
    """Return files by image id from files by name.

    Raises:
        PPLValueError: if two files differ only in their extension.
    """
    names: dict[str, str] = {}
    for name in files:
        image_id = posixpath.splitext(name)[0]
        if image_id in names:
            other = posixpath.basename(names[image_id])
            raise PPLValueError(f"{files[name]} and {other} differ in extension alone; rename or remove one of them")
        names[image_id] = name
    return files.renamed(names.items())


def _files(folder: Path, below: str = "", within: tuple[Path, ...] = ()) -> Iterator[str]:
    """Yield the paths of all files at and below a folder in the order of their names, without hidden ones."""
    real = folder.resolve()
    if real in within:  # a link back to a folder that contains the link
        return
    try:
        with os.scandir(folder) as entries:
            shown = sorted((entry.name, entry.is_dir()) for entry in entries if not entry.name.startswith("."))
    except OSError as error:
        raise PPLValueError(f"{folder} cannot be read: {error.strerror}; check its permissions") from error
    for name, is_folder in shown:
        if is_folder:
            yield from _files(folder / name, f"{below}{name}/", (*within, real))
        else:
            yield below + name
