"""Open a data set in any known layout, and add layouts."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Protocol

from ppl.data.class_folders import find_class_folders, read_class_folders
from ppl.data.coco import find_coco, read_coco
from ppl.data.config import DatasetConfig
from ppl.data.dataset import Sample, TaggedImages
from ppl.data.folder import find_labels, read_folder
from ppl.data.image_index import Missing
from ppl.data.labelme import find_labelme, read_labelme
from ppl.data.mask_sources import MappedMask
from ppl.data.voc import find_voc, read_voc
from ppl.data.webdataset import find_archives, read_webdataset
from ppl.data.yolo import find_yolo, read_yolo
from ppl.errors import PPLFileNotFoundError, PPLValueError
from ppl.registry import Registry

__all__ = ["LAYOUTS", "open_dataset", "register_layout"]

_DEFAULTS = DatasetConfig(root=Path())


class Reader(Protocol):
    """A function that reads a data set."""

    def __call__(self, root: Path, split: str | None = None, *, missing: Missing = "error") -> TaggedImages:
        """Read one split, or everything if `split` is None."""


@dataclass(frozen=True)
class Layout:
    """One way in which data sets lie on the disk.

    Attributes:
        read: reads a data set; a missing split raises `NoSplitError`.
        recognise: returns whether a folder is in this layout; None if `layout: auto` never chooses the layout.
        files: files by which the layout is recognised, for messages.
    """

    read: Reader
    recognise: Callable[[Path], bool] | None = None
    files: str = ""


LAYOUTS: Registry[Layout] = Registry("layout")
"""All known layouts, in the order in which `layout="auto"` looks for them."""


def register_layout(
    name: str, read: Reader, *, recognise: Callable[[Path], bool] | None = None, files: str = ""
) -> None:
    """Add a layout, for `open_dataset(root, layout=name)` and `layout: name` in recipes.

    Args:
        name: name of the layout.
        read: function `read(root, split=None, *, missing="error") -> TaggedImages`. `missing` says whether a listed
            image without a file is an error or stays in the data set, for `check_images` to report.
        recognise: function that returns whether a folder is in this layout. Without it "auto" never chooses the
            layout. Layouts that were registered before are asked first.
        files: files by which the layout is recognised, for the message when no layout is.

    Raises:
        PPLValueError: if the name is taken.

    Example:
        >>> def read_prefixes(root, split=None, *, missing="error"):
        ...     paths = sorted(root.glob("*.jpg"))
        ...     classes = tuple(sorted({path.name.split("_")[0] for path in paths}))
        ...     samples = [Sample(path.stem, path, (classes.index(path.name.split("_")[0]),)) for path in paths]
        ...     return TaggedImages(classes, tuple(samples), root.name)
        >>> register_layout("by_prefix", read_prefixes)
        >>> "by_prefix" in LAYOUTS
        True
    """
    if name == "auto":
        raise PPLValueError('"auto" means that the layout is recognised; choose another name')
    LAYOUTS.register(name, Layout(read, recognise, files))


def open_dataset(
    root: str | os.PathLike[str],
    split: str | None = None,
    layout: str = _DEFAULTS.layout,
    *,
    missing: Missing = "error",
    zero: Literal["background", "ignore"] = _DEFAULTS.zero,
    white: Literal["object", "ignore"] | None = _DEFAULTS.white,
    untagged: Literal["keep", "drop"] = _DEFAULTS.untagged,
    value_range: int | None = _DEFAULTS.value_range,
) -> TaggedImages:
    """Read a data set in any known layout.

    Args:
        root: folder of the data set.
        split: part of the data set; None reads everything.
        layout: name of a layout ("folder", "coco", "voc", "yolo", "labelme", "class_folders", "webdataset", or one
            that was registered), or "auto" to recognise the layout by its files.
        missing: "error" refuses a list with an image that does not exist; "keep" leaves such images in the data set,
            and `check_images` reports them.
        zero: meaning of value 0 in masks: "background", or "ignore" where 0 means that the pixel is not labelled.
        white: meaning of value 255 in masks: "ignore", or "object" for black-and-white masks of the only class. None
            means "ignore", and `check_images` refuses masks without any other value.
        untagged: "drop" leaves out the images without any tag.
        value_range: largest value of 16-bit pictures; see `ppl.io.read_image`.

    Raises:
        PPLFileNotFoundError: if `root` is not a folder or no layout is recognised; `NoSplitError` if the split does
            not exist.
        PPLValueError: if there is no layout of that name, `zero`, `white` or `untagged` has another value than those
            above, or `white` is "object" and there is more than one class.

    Example:
        >>> open_dataset("/nowhere")
        Traceback (most recent call last):
        ...
        ppl.errors.PPLFileNotFoundError: /nowhere is not a folder; check the path
    """
    root = Path(root)
    if not root.is_dir():
        fix = "unpack it and give the folder" if root.suffix in (".zip", ".tar", ".tgz", ".gz") else "check the path"
        raise PPLFileNotFoundError(f"{root} is not a folder; {fix}")
    for name, value, known in (
        ("zero", zero, ("background", "ignore")),
        ("white", white, (None, "object", "ignore")),
        ("untagged", untagged, ("keep", "drop")),
    ):
        if value not in known:
            raise PPLValueError(f"{name}={value!r} is not understood; use {' or '.join(map(repr, known))}")
    chosen = _recognise(root) if layout == "auto" else LAYOUTS.find(layout)
    dataset = chosen.read(root, split, missing=missing)
    if untagged == "drop":
        dataset = replace(dataset, samples=tuple(sample for sample in dataset if sample.labels))
    if white == "object" and len(dataset.classes) > 1:
        raise PPLValueError(f'white="object" needs a data set of one class, but {dataset.name} has {dataset.classes}')
    values: tuple[tuple[int, int], ...] = ((0, 255),) if zero == "ignore" else ()
    if white is not None:
        values += ((255, 1 if white == "object" else 255),)

    def read_as(sample: Sample) -> Sample:
        mask = MappedMask(sample.mask, values) if values and sample.mask is not None else sample.mask
        return replace(sample, mask=mask, value_range=value_range)

    if not values and value_range is None:
        return dataset
    return replace(dataset, samples=tuple(map(read_as, dataset.samples)))


def _recognise(root: Path) -> Layout:
    for layout in LAYOUTS.values():
        if layout.recognise is not None and layout.recognise(root):
            return layout
    there = ", ".join(sorted(path.name for path in root.iterdir())[:8]) or "nothing"
    wanted = ", ".join(f"{layout.files} ({name})" for name, layout in LAYOUTS.items() if layout.files)
    tables = sorted(path.name for path in root.iterdir() if path.suffix.lower() in _TABLES)
    hint = f"; if {tables[0]} is the table of tags, save it as labels.csv beside images/" if tables else ""
    raise PPLFileNotFoundError(f"{root} is in no known layout: it needs {wanted}, but holds {there}{hint}")


_TABLES = (".csv", ".tsv", ".ods", ".xls", ".xlsx")


register_layout("folder", read_folder, recognise=lambda root: find_labels(root) is not None, files="labels.csv")
register_layout(
    "coco", read_coco, recognise=lambda root: bool(find_coco(root)), files="annotations/instances_*.json or the like"
)
register_layout("voc", read_voc, recognise=lambda root: find_voc(root) is not None, files="JPEGImages")
register_layout(
    "yolo", read_yolo, recognise=lambda root: find_yolo(root) is not None, files="data.yaml with names and train"
)
register_layout(
    "labelme", read_labelme, recognise=lambda root: bool(find_labelme(root)), files="a JSON file beside every image"
)
register_layout(
    "class_folders",
    read_class_folders,
    recognise=lambda root: any(len(folders) > 1 for folders in find_class_folders(root).values()),
    files="a folder of images per class",
)
register_layout(
    "webdataset", read_webdataset, recognise=lambda root: bool(find_archives(root)), files="tar archives of images"
)
