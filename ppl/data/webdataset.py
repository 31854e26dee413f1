"""Read tar archives as the package webdataset writes them: files of one image share their name up to the ending."""

from __future__ import annotations

import json
import os
import re
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from ppl.data.dataset import Sample, TaggedImages, warn_about_tags
from ppl.data.image_index import Missing
from ppl.data.splits import find_split
from ppl.data.tags_csv import LABEL_COLUMNS
from ppl.data.text_files import read_classes
from ppl.errors import PPLFileNotFoundError, PPLValueError, nearest
from ppl.io import read_mask
from ppl.io.archives import ARCHIVE_SUFFIX, ArchivedFile, FilePath
from ppl.io.listing import (
    IMAGE_SUFFIXES,
    MASK_ENDINGS,
    Paths,
    by_image_id,
    counted,
    examples,
    list_archived,
    normalize_name,
)

__all__ = ["ArchivedMask", "find_archives", "read_webdataset"]

_TAG_SUFFIXES = (".cls", ".json", ".txt")
_Tags: TypeAlias = list[str] | list[int]


@dataclass(frozen=True)
class ArchivedMask:
    """A mask of class indices in a tar archive.

    Attributes:
        file: the mask, a PNG.
    """

    file: ArchivedFile

    def read(self) -> npt.NDArray[np.uint8]:
        """Return (H, W) uint8 class indices; see `ppl.io.read_mask` for errors."""
        return read_mask(self.file)


def read_webdataset(
    root: str | os.PathLike[str], split: str | None = None, *, missing: Missing = "error"
) -> TaggedImages:
    r"""Read tar archives of images and tags. Nothing is unpacked, and no package beside Python's own is needed.

    ::

        train-000.tar, train-001.tar, val-000.tar    or train/000.tar, val/000.tar
            a.jpg                       a picture of any format
            a.json, a.cls or a.txt      its tags
            a.mask.png or a.seg.png     optional: 0 background, class c is c + 1, 255 ignore
        classes.txt                     one class per line; without it the tags, sorted

    Tags are names or class indices from 0: a list, or the value of `labels`, `tags`, `class`, ... in JSON; numbers
    separated by blanks or commas in `.cls`; names separated by ";" or lines in `.txt`.

    Args:
        root: folder of the archives.
        split: a word in the names of archives or of their folders; None reads all archives.
        missing: without effect: the images are those that exist.

    Returns:
        The data set. An image id is the name of the archive and of the image: `train-000/a`.

    Raises:
        PPLFileNotFoundError: if `root` holds no archives; `NoSplitError` if none is of the split.
        PPLValueError: if an archive is compressed, tags cannot be read, or a tag is no class.

    Warns:
        UserWarning: for archives that are cut off, pictures without tags and tags without picture.
    """
    root = Path(root)
    archives = find_archives(root)
    if not archives:
        raise PPLFileNotFoundError(f"{root} holds no {ARCHIVE_SUFFIX} files; check the path")
    words = {name: _words(name) for name in archives}
    if split is not None:
        known = dict.fromkeys(word for found in words.values() for word in found)
        split = find_split(list(known), split, root)
        archives = {name: path for name, path in archives.items() if split in words[name]}
    files = list_archived(archives)
    pictures = by_image_id(Paths(root, {name: file for name, file in files.items() if _is_picture(name)}))
    tags = dict(_read_tags(files))
    what = f"{root.name}/{split}" if split else root.name
    _warn_unpaired(what, set(pictures), set(tags))
    classes = _classes(root, tags)
    masks = _masks(files)
    samples = tuple(
        Sample(image_id, picture, _labels(tags[image_id], classes, picture), masks.get(image_id))
        for image_id, picture in pictures.items()
        if image_id in tags
    )
    return warn_about_tags(TaggedImages(classes, samples, what))


def find_archives(root: Path) -> dict[str, FilePath]:
    """Return the tar archives in a folder and its folders, by their path below it."""
    found = sorted([*root.glob(f"*{ARCHIVE_SUFFIX}"), *root.glob(f"*/*{ARCHIVE_SUFFIX}")])
    return {path.relative_to(root).as_posix(): path for path in found if not path.name.startswith(".")}


def _words(name: str) -> list[str]:
    """Return the words of a name that may be a split."""
    return [word for word in re.split(r"[^A-Za-z0-9]+", name.removesuffix(ARCHIVE_SUFFIX)) if not word.isdigit()]


def _is_picture(name: str) -> bool:
    return name.lower().endswith(IMAGE_SUFFIXES) and not name.lower().endswith(MASK_ENDINGS)


def _masks(files: Mapping[str, FilePath]) -> dict[str, ArchivedMask]:
    found = {}
    for name, file in files.items():
        ending = next((ending for ending in MASK_ENDINGS if name.lower().endswith(ending)), None)
        if ending is not None and isinstance(file, ArchivedFile):
            found[name[: -len(ending)]] = ArchivedMask(file)
    return found


def _read_tags(files: Mapping[str, FilePath]) -> Iterator[tuple[str, _Tags]]:
    """Yield image id and tags of every file of tags."""
    for name, file in files.items():
        if name.lower().endswith(_TAG_SUFFIXES) and isinstance(file, ArchivedFile):
            yield name.removesuffix(file.suffix), _parse(file)


def _parse(file: ArchivedFile) -> _Tags:
    """Return the tags that a file holds: names, or class indices."""
    try:
        text = file.read_bytes().decode("utf-8-sig").strip()
        if file.suffix.lower() == ".cls":
            return [int(word) for word in re.split(r"[\s,;]+", text) if word]
        if file.suffix.lower() == ".txt":
            return [tag.strip() for tag in re.split(r"[;\n]", text) if tag.strip()]
        found = json.loads(text)
    except ValueError as error:  # of text, numbers and JSON
        raise PPLValueError(f"the tags in {file} cannot be read: {error}; mend the file") from error
    if isinstance(found, dict):
        lower = {key.lower(): value for key, value in found.items()}
        column = next((column for column in LABEL_COLUMNS if column in lower), None)
        if column is None:
            raise PPLValueError(f"{file} has the keys {', '.join(found)}, but tags stand in labels")
        found = lower[column]
    return _tags_of(found if isinstance(found, list) else [] if found is None else [found], file)


def _tags_of(values: list[Any], file: ArchivedFile) -> _Tags:
    for kind in (str, int):
        if all(type(value) is kind for value in values):
            return values
    raise PPLValueError(f"{file} holds the tags {values!r}; write names, or class indices from 0")


def _classes(root: Path, tags: Mapping[str, _Tags]) -> tuple[str, ...]:
    path = root / "classes.txt"
    if path.is_file():
        return tuple(map(normalize_name, read_classes(path)))
    found = {tag for own in tags.values() for tag in own}
    if any(isinstance(tag, int) for tag in found):
        raise PPLValueError(f"{path} is missing, and the tags are numbers: write one class per line, line 1 is class 0")
    if not found:
        raise PPLValueError(f"the archives in {root} hold no tag at all; write them beside the images, as a.txt")
    warnings.warn(f"{path} is missing: the {len(found)} tags are the classes", stacklevel=4)
    return tuple(sorted(normalize_name(str(tag)) for tag in found))


def _labels(tags: _Tags, classes: tuple[str, ...], picture: FilePath) -> tuple[int, ...]:
    labels = set()
    for tag in tags:
        name = normalize_name(tag) if isinstance(tag, str) else tag
        if isinstance(name, int) and not 0 <= name < len(classes):
            raise PPLValueError(f"{picture} has the class index {name}, but there are {len(classes)} classes, from 0")
        if isinstance(name, str) and name not in classes:
            raise PPLValueError(f"{picture} has the tag {name!r}, which is not in classes.txt{nearest(name, classes)}")
        labels.add(name if isinstance(name, int) else classes.index(name))
    return tuple(sorted(labels))


def _warn_unpaired(what: str, pictures: set[str], tags: set[str]) -> None:
    for names, others, fault in ((pictures, tags, "picture"), (tags, pictures, "file of tags")):
        left = sorted(names - others)
        if left:
            lacks = "tags" if fault == "picture" else "picture"
            warnings.warn(
                f"{what}: {counted(len(left), fault)} left out, without {lacks} of the same name: {examples(left)}",
                stacklevel=4,
            )
