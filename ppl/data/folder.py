"""The library's own layout: a folder of images and a CSV of tags."""

from __future__ import annotations

import csv
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple

from ppl.data.dataset import NoSplitError, Sample, TaggedImages, warn_absent_classes
from ppl.errors import PPLFileNotFoundError, PPLValueError, nearest
from ppl.io import IMAGE_SUFFIXES, list_images
from ppl.io.listing import list_masks, normalize_name

__all__ = ["read_classes", "read_folder", "read_labels", "read_list"]


def read_folder(
    root: str | os.PathLike[str], split: str | None = None, *, missing: Literal["error", "keep"] = "error"
) -> TaggedImages:
    r"""Read a data set in the layout below.

    ::

        images/       any names, sizes and formats, also in sub-folders
        labels.csv    header image,labels; one row per image, ";" between names, empty for "none of the classes"
        classes.txt   one class per line, background not among them; without it the tags, sorted
        train.txt     a split: one image name per line, any number of such lists
        masks/        <name>.png where masks exist: 0 background, line i of classes.txt is i, 255 ignore

    Images may be named with or without their extension, in the CSV and in the lists. Names and tags are compared in
    NFC, whichever way their accents are stored.

    Args:
        root: the folder.
        split: name of a list without ".txt"; None reads every row of the CSV, in its order.
        missing: "error" refuses a list with an image that is not there, "keep" leaves it in, so that `check_images`
            can report it and the rest of the images can be used.

    Returns:
        The data set, named "<folder>/<split>".

    Raises:
        PPLFileNotFoundError: if the folder, one of its files or an image is missing; `NoSplitError` if the split is.
        PPLValueError: if a tag is not in classes.txt, a row or name comes twice, the CSV is empty or a listed image is
            not in it, and the message names file and line; or if a class is named "background".

    A class that no image carries is a warning, and so is a masks/ of which no file is named after an image.

    Example:
        >>> import tempfile
        >>> from PIL import Image
        >>> folder = tempfile.TemporaryDirectory()
        >>> root = Path(folder.name)
        >>> (root / "images").mkdir()
        >>> Image.new("RGB", (4, 3)).save(root / "images" / "garden.jpg")
        >>> _ = (root / "classes.txt").write_text("cat\ndog\n")
        >>> _ = (root / "labels.csv").write_text("image,labels\ngarden.jpg,dog;cat\n")
        >>> read_folder(root)[0].labels
        (0, 1)
        >>> folder.cleanup()
    """
    if missing not in ("error", "keep"):
        raise PPLValueError(f'missing={missing!r} is not understood; use "error" or "keep"')
    root = Path(root)
    if not root.is_dir():
        raise PPLFileNotFoundError(f"{root} is not a folder; check the path")
    classes = _classes(root)
    rows = _read_labels(root / "labels.csv", classes)
    images = list_images(root / "images")
    masks = list_masks(root / "masks", images)
    image_ids = (
        _read_split(root, split, rows) if split is not None else {image_id: row.line for image_id, row in rows.items()}
    )
    samples = []
    for image_id, line in image_ids.items():
        if image_id not in images and missing == "error":
            where = root / ("labels.csv" if split is None else f"{split}.txt")
            raise PPLFileNotFoundError(
                f"{where} line {line}: images/ has no file for {image_id!r}{nearest(image_id, images)}"
            )
        image = images.get(image_id, root / "images" / image_id)
        samples.append(Sample(image_id, image, rows[image_id].labels, masks.get(image_id)))
    return warn_absent_classes(TaggedImages(classes, tuple(samples), f"{root.name}/{split}" if split else root.name))


def read_classes(path: Path) -> tuple[str, ...]:
    """The class names of a classes.txt; see `read_folder`."""
    lines = list(_lines(path, "a file with one class name per line"))
    seen: dict[str, int] = {}
    for number, name in lines:
        if ";" in name:
            raise PPLValueError(
                f'{path} line {number}: {name!r} holds a ";", which separates tags in labels.csv; rename it'
            )
        if name in seen:
            raise PPLValueError(f"{path} line {number}: {name!r} is already on line {seen[name]}; remove one of them")
        seen[name] = number
    if not seen:
        raise PPLValueError(f"{path} is empty; write one class name per line")
    return tuple(seen)


def read_list(path: Path) -> dict[str, int]:
    """The names in a split list, without extension, with their line numbers; see `read_folder`."""
    image_ids: dict[str, int] = {}
    for number, name in _lines(path, "a list of image names, one per line"):
        image_id = _without_suffix(name)
        if image_id in image_ids:
            raise PPLValueError(
                f"{path} line {number}: {name!r} is already on line {image_ids[image_id]}; remove one of them"
            )
        image_ids[image_id] = number
    if not image_ids:
        raise PPLValueError(f"{path} is empty; write one image name per line")
    return image_ids


def read_labels(path: Path, classes: tuple[str, ...]) -> dict[str, tuple[int, ...]]:
    """The class indices of every image of a labels.csv, by name without extension; see `read_folder`."""
    return {image_id: row.labels for image_id, row in _read_labels(path, classes, "among the classes").items()}


def _classes(root: Path) -> tuple[str, ...]:
    """The classes of classes.txt, or without that file the tags of labels.csv, sorted."""
    if (root / "classes.txt").is_file():
        return read_classes(root / "classes.txt")
    found = sorted({tag for _, _, tags in _cells(root / "labels.csv") for tag in tags})
    if not found:
        raise PPLValueError(f"{root / 'labels.csv'} holds no tag at all; write them behind the image names")
    warnings.warn(
        f"{root / 'classes.txt'} is missing: the {len(found)} tags of labels.csv are the classes, so a misspelt tag is "
        "a class of its own",
        stacklevel=4,
    )
    return tuple(found)


_OPEN_QUOTE = 'a quote (") opens a cell and is not closed on this line; close it, or write it twice if it is meant'


class _Row(NamedTuple):
    line: int
    labels: tuple[int, ...]


def _read_labels(path: Path, classes: tuple[str, ...], known: str = "in classes.txt") -> dict[str, _Row]:
    """The rows of a labels.csv by image name without extension; `known` is where a tag has to be."""
    indices = {normalize_name(name): index for index, name in enumerate(classes)}
    rows: dict[str, _Row] = {}
    for line, name, tags in _cells(path):
        image_id = _without_suffix(name)
        if image_id in rows:
            raise PPLValueError(
                f"{path} line {line}: {name!r} is already on line {rows[image_id].line}; merge the two rows"
            )
        unknown = next((tag for tag in tags if tag not in indices), None)
        if unknown is not None:
            close = nearest(unknown, classes)
            raise PPLValueError(f"{path} line {line}: tag {unknown!r} of image {name!r} is not {known}{close}")
        rows[image_id] = _Row(line, tuple(sorted({indices[tag] for tag in tags})))
    if not rows:
        raise PPLValueError(f"{path} holds a header and no rows; write one row per image")
    return rows


def _cells(path: Path) -> Iterator[tuple[int, str, list[str]]]:
    """Line number, image name and tags of every row."""
    rows = _rows(path)
    _, first = next(rows)
    header = [cell.strip().lower() for cell in first]
    if not header:
        raise PPLValueError(f"{path} is empty; write a header image,labels and one row per image")
    if "image" not in header or "labels" not in header:
        raise PPLValueError(f"{path} line 1: the header is {','.join(header)!r}; it must hold image,labels")
    for line, cells in rows:
        if not any(cell.strip() for cell in cells):
            continue
        if len(cells) != len(header):
            fix = 'put ";" between tags, not ","'
            raise PPLValueError(f"{path} line {line}: {len(cells)} cells instead of {len(header)}; {fix}")
        name, listed = (cells[header.index(column)].strip() for column in ("image", "labels"))
        if len(name.splitlines()) > 1 or len(listed.splitlines()) > 1:  # it was closed by a quote of a later row
            raise PPLValueError(f"{path} line {line}: {_OPEN_QUOTE}")
        if not name:
            raise PPLValueError(f"{path} line {line}: the image has no name; fill it in or remove the row")
        tags = (tag.strip() for tag in listed.split(";"))
        yield line, name, [tag for tag in tags if tag]


def _rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """The line that a row begins on, and its cells; the last one is an empty row."""
    lines = _text(path, "a CSV with a header image,labels and one row per image").splitlines(keepends=True)
    lines.append("")  # a row of its own, unless a quote is open
    rows = csv.reader(lines)
    line = 1
    while line <= len(lines):
        try:
            cells = next(rows)
            whole = rows.line_num < len(lines) or line == len(lines)
        except csv.Error:  # all that follows the quote is more than a cell can hold
            whole = False
        if not whole:
            raise PPLValueError(f"{path} line {line}: {_OPEN_QUOTE}")
        yield line, cells
        line = rows.line_num + 1


def _read_split(root: Path, split: str, rows: dict[str, _Row]) -> dict[str, int]:
    path = root / f"{split}.txt"
    if not path.is_file():
        others = sorted(path.stem for path in root.glob("*.txt") if path.name != "classes.txt")
        there = f"there are: {', '.join(others)}" if others else "there are no lists at all: leave the split out"
        raise NoSplitError(f"{path} is missing, so there is no split {split!r}; {there}")
    image_ids = read_list(path)
    for image_id, line in image_ids.items():
        if image_id not in rows:
            raise PPLValueError(
                f"{path} line {line}: image {image_id!r} has no row in labels.csv{nearest(image_id, rows)}"
            )
    return image_ids


def _lines(path: Path, what: str) -> Iterator[tuple[int, str]]:
    """The lines that hold something, stripped, with their numbers from 1."""
    for number, line in enumerate(_text(path, what).splitlines(), start=1):
        if line.strip():
            yield number, line.strip()


def _text(path: Path, what: str) -> str:
    """The content in NFC, as all names are compared."""
    try:
        return normalize_name(path.read_text(encoding="utf-8-sig"))  # Windows editors put a byte-order mark in front
    except FileNotFoundError as error:
        raise PPLFileNotFoundError(f"{path} is missing; it should be {what}") from error
    except UnicodeDecodeError as error:
        raise PPLValueError(
            f"{path} is not UTF-8 text ({error.reason} at byte {error.start}); save it as UTF-8"
        ) from error


def _without_suffix(name: str) -> str:
    """The name without a picture's extension; other dots belong to it."""
    return name[: name.rindex(".")] if name.lower().endswith(IMAGE_SUFFIXES) else name
