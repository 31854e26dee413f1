"""Read the library's own layout: a folder of images and a CSV of tags."""

from __future__ import annotations

import os
import warnings
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path, PureWindowsPath
from typing import NamedTuple

from ppl.data.dataset import NoSplitError, Samples, TaggedImages, warn_about_tags
from ppl.data.image_index import ImageIndex, Missing, find_listed
from ppl.data.mask_sources import ColorMask, find_color_table
from ppl.data.tags_csv import TagRow, read_tag_rows
from ppl.data.tags_parquet import read_parquet_rows
from ppl.data.text_files import read_classes
from ppl.errors import PPLFileNotFoundError, PPLValueError, nearest
from ppl.io.archives import ARCHIVE_SUFFIX, FilePath
from ppl.io.listing import examples, list_masks, normalize_name

__all__ = ["find_labels", "read_folder", "read_images"]


def read_folder(root: str | os.PathLike[str], split: str | None = None, *, missing: Missing = "error") -> TaggedImages:
    r"""Read a data set in the layout below.

    ::

        images/       any names, sizes and formats, also in sub-folders, or tar archives of images
        labels.csv    header image,labels; one row per image, ";" between names, empty for "none of the classes";
                      or labels.parquet, whose tags may be lists
        classes.txt   one class per line, background not among them; without it the tags, sorted
        train.txt     a split: one image name per line, any number of lists
        masks/        <name>.png where masks exist: 0 background, line i of classes.txt is i, 255 ignore
        labelmap.txt  only where colours of the masks mean classes: name:red,green,blue on every line

    Images may be named with or without their extension, in the CSV and in the lists. Names and tags are compared in
    NFC, however their accents are stored. `labels.csv` may have other columns and separators: see
    `ppl.data.tags_csv.read_tag_rows`.

    Args:
        root: folder of the data set.
        split: name of a list without ".txt"; None reads every row of the CSV, in its order.
        missing: "error" refuses a list with an image that does not exist, "keep" leaves such images in the data set,
            and `check_images` reports them.

    Returns:
        The data set, named "<folder>/<split>".

    Raises:
        PPLFileNotFoundError: if the folder, one of its files or an image is missing; `NoSplitError` if the split is.
        PPLValueError: if a tag is not in classes.txt, a row or name comes twice, the CSV is empty or a listed image is
            not in it (the message names file and line), or if a class is named like the background.

    Warns:
        UserWarning: if a class is on no image or on every image, images have no row in the CSV, or masks are not named
            after an image.

    Example:
        >>> import tempfile
        >>> from PIL import Image
        >>> folder = tempfile.TemporaryDirectory()
        >>> root = Path(folder.name)
        >>> (root / "images").mkdir()
        >>> Image.new("RGB", (4, 3)).save(root / "images" / "garden.jpg")
        >>> _ = (root / "classes.txt").write_text("cat\ndog\n")
        >>> _ = (root / "labels.csv").write_text("image,labels\ngarden.jpg,dog\n")
        >>> read_folder(root)[0].labels
        (1,)
        >>> folder.cleanup()
    """
    if missing not in ("error", "keep"):
        raise PPLValueError(f'missing={missing!r} is not understood; use "error" or "keep"')
    root = Path(root)
    if not root.is_dir():
        raise PPLFileNotFoundError(f"{root} is not a folder; check the path")
    table = find_labels(root) or root / "labels.csv"
    colors = find_color_table(root, root / "masks")
    classes = _listed_classes(root)
    if classes is None and colors is not None:
        classes = colors.classes
    classes, rows = _read_tags(table, classes, "in classes.txt")
    if colors is not None:
        colors = colors.reordered(classes, root / "classes.txt")
    index = ImageIndex(root / "images")
    masks = list_masks(root / "masks", index.images)
    tagged = _by_image_id(table, rows, classes, index)
    if split is None:
        image_ids = list(tagged.labels)
        index.check(missing)
        _warn_untagged(table, index, tagged.labels)
    else:
        index.forget()  # only the images of the split have to exist
        lines = find_listed(_split_path(root, split), index)
        image_ids = list(lines)
        for image_id, line in lines.items():
            if image_id not in tagged.labels:
                close, place = nearest(image_id, tagged.labels), f"{_split_path(root, split)} line {line}"
                raise PPLValueError(f"{place}: image {image_id!r} has no row in {table.name}{close}")
        index.check(missing)
    drawn: Mapping[str, Path | ColorMask] = masks
    if colors is not None:
        drawn = {image_id: ColorMask(mask, colors) for image_id, mask in masks.items()}
    samples = tagged.samples(image_ids, drawn)
    return warn_about_tags(TaggedImages(classes, samples, f"{root.name}/{split}" if split else root.name))


def find_labels(root: Path) -> Path | None:
    """Return the table of tags of a data set in the library's own layout, None if there is none.

    Raises:
        PPLValueError: if there are two.
    """
    found = [path for path in (root / "labels.csv", root / "labels.parquet") if path.is_file()]
    if len(found) > 1:
        raise PPLValueError(f"{root} holds labels.csv and labels.parquet; remove one of them")
    return found[0] if found else None


def read_images(
    folder: str | os.PathLike[str],
    classes: Sequence[str],
    labels: str | os.PathLike[str] | None = None,
    *,
    value_range: int | None = None,
) -> TaggedImages:
    """Read a folder of pictures that is no data set, with or without a CSV of tags.

    Args:
        folder: pictures, also in sub-folders or tar archives; or one picture, or one archive.
        classes: names that the tags may have.
        labels: CSV as `labels.csv` in `read_folder`; without it no image has a tag. Only pictures with a row are read.
        value_range: largest value of 16-bit pictures; see `ppl.io.read_image`.

    Returns:
        The pictures, named after their folder; in the order of the CSV, else in the order of their names.

    Raises:
        PPLFileNotFoundError: if the folder, the CSV or one of its pictures is missing.
        PPLValueError: if there are no pictures, or a tag is none of `classes`.
    """
    folder = Path(folder)
    index = ImageIndex(folder)
    if not index.images:
        raise PPLValueError(f"{folder} holds no pictures; check the path")
    if labels is None:
        tagged = _Tagged(dict.fromkeys(index.images, ()), index.images)
        return TaggedImages(tuple(classes), tagged.samples(list(index.images), {}, value_range), folder.name)
    known, rows = _read_tags(Path(labels), tuple(classes), "among the classes")
    if folder.is_file() and folder.suffix != ARCHIVE_SUFFIX:
        rows = [row for row in rows if PureWindowsPath(row.image).name in (folder.name, folder.stem)]
        if not rows:
            raise PPLFileNotFoundError(f"{labels} has no row for {folder.name}")
    tagged = _by_image_id(Path(labels), rows, known, index)
    index.check("error")
    return TaggedImages(tuple(classes), tagged.samples(list(tagged.labels), {}, value_range), folder.name)


def _listed_classes(root: Path) -> tuple[str, ...] | None:
    return read_classes(root / "classes.txt") if (root / "classes.txt").is_file() else None


def _read_tags(path: Path, classes: tuple[str, ...] | None, known: str) -> tuple[tuple[str, ...], list[TagRow]]:
    """Return the classes and the rows of a table of tags; `known` says where a tag has to be, for the error."""
    names = None if classes is None else tuple(map(normalize_name, classes))
    rows, columns = (read_parquet_rows if path.suffix == ".parquet" else read_tag_rows)(path, names)
    if names is None:
        names = columns or tuple(sorted({tag for row in rows for tag in row.tags}))
        if not names:
            raise PPLValueError(f"{path} holds no tag at all; write them behind the image names")
        if columns is None:
            warnings.warn(
                f"{path.with_name('classes.txt')} is missing: the {len(names)} tags of {path.name} are the classes, so "
                "a misspelt tag is a class of its own",
                stacklevel=5,
            )
    for column in columns or ():
        if column not in names:
            raise PPLValueError(f"{path} line 1: column {column!r} is not {known}{nearest(column, names)}")
    for row in rows:
        unknown = next((tag for tag in row.tags if tag not in names), None)
        if unknown is not None:
            what = f"tag {unknown!r} of image {row.image!r} is not {known}{nearest(unknown, names)}"
            raise PPLValueError(f"{path} line {row.line}: {what}")
    return names, rows


class _Tagged(NamedTuple):
    """Labels and image files by image id; the files of all images that are there or listed, the labels of some."""

    labels: dict[str, tuple[int, ...]]
    images: Mapping[str, FilePath]

    def samples(
        self, image_ids: Sequence[str], masks: Mapping[str, Path | ColorMask], value_range: int | None = None
    ) -> Samples:
        ranges = {} if value_range is None else dict.fromkeys(image_ids, value_range)
        return Samples(image_ids, [self.labels[name] for name in image_ids], self.images, masks, ranges)


def _by_image_id(path: Path, rows: Sequence[TagRow], classes: tuple[str, ...], index: ImageIndex) -> _Tagged:
    """Return the image file and the class indices of every row."""
    position = {name: number for number, name in enumerate(classes)}
    lines: dict[str, int] = {}
    labels: dict[str, tuple[int, ...]] = {}
    absent: dict[str, FilePath] = {}
    known: dict[tuple[str, ...], tuple[int, ...]] = {}  # equal labels are stored once
    for row in rows:
        image_id, image = index.find(row.image, f"{path} line {row.line}")
        if image_id in labels:
            what = f"{path} line {row.line}: {row.image!r} is already on line {lines[image_id]}"
            raise PPLValueError(f"{what}; merge the two rows")
        if image_id not in index.images:
            absent[image_id] = image
        if row.tags not in known:
            known[row.tags] = tuple(sorted({position[tag] for tag in row.tags}))
        lines[image_id], labels[image_id] = row.line, known[row.tags]
    return _Tagged(labels, {**index.images, **absent} if absent else index.images)


def _warn_untagged(path: Path, index: ImageIndex, tagged: Collection[str]) -> None:
    untagged = [image_id for image_id in index.images if image_id not in tagged]
    if untagged:
        warnings.warn(
            f"{len(untagged)} of {len(index.images)} pictures in {index.folder} have no row in {path.name} and are not "
            f"used: {examples(untagged)}; a picture without any class needs a row with an empty cell",
            stacklevel=4,
        )


def _split_path(root: Path, split: str) -> Path:
    path = root / f"{split}.txt"
    if not path.is_file():
        others = sorted(
            file.stem for file in root.glob("*.txt") if file.name not in ("classes.txt", "labelmap.txt", "parts.txt")
        )
        there = f"there are: {', '.join(others)}" if others else "there are no lists at all: leave the split out"
        raise NoSplitError(f"{path} is missing, so there is no split {split!r}; {there}")
    return path
