"""Read labelme's layout: a JSON file of outlines beside every image."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any, NamedTuple

from ppl.data.dataset import BACKGROUND_NAMES, IGNORE_NAMES, Sample, TaggedImages, warn_about_tags, warn_unmasked
from ppl.data.image_index import ImageIndex, Missing
from ppl.data.instances import Instance, InstanceMask
from ppl.data.splits import SPLIT_NAMES, find_split
from ppl.data.text_files import read_lines
from ppl.errors import PPLFileNotFoundError, PPLValueError, nearest
from ppl.io.listing import list_files, normalize_name

__all__ = ["find_labelme", "read_labelme"]

_IGNORED = 254
"""Label of regions to ignore: they are drawn as 255."""


def read_labelme(root: str | os.PathLike[str], split: str | None = None, *, missing: Missing = "error") -> TaggedImages:
    """Read images that were annotated with labelme.

    ::

        a.jpg, a.json       side by side, also in sub-folders; or
        train/, val/, ...   the same for each split
        labels.txt          optional: one class per line; without it the labels of all files, sorted

    Polygons, rectangles and circles make the masks, drawn in their order in the file; points and lines are tags
    without area. Shapes named `__ignore__` are drawn as 255, `_background_` as 0. True flags of the image are tags too.

    Args:
        root: folder of the data set.
        split: sub-folder; None reads all images with a JSON file.
        missing: "error" refuses a JSON file without its image, "keep" leaves such images in the data set, and
            `check_images` reports them.

    Returns:
        The data set; image ids are paths below `root`.

    Raises:
        PPLFileNotFoundError: if there is no labelme file, or an image is missing; `NoSplitError` if the split is.
        PPLValueError: if a file is damaged or a label is not in `labels.txt`.
    """
    root = Path(root)
    files = find_labelme(root)
    if not files:
        raise PPLFileNotFoundError(f"{root} holds no labelme files (.json with shapes and imagePath)")
    annotations = {name: _read(path) for name, path in files.items()}
    classes = _classes(root, annotations, files)
    if split is not None:
        splits = [name for name in SPLIT_NAMES if any(file.startswith(f"{name}/") for file in files)]
        prefix = f"{find_split(splits, split, root)}/"
        annotations = {name: annotation for name, annotation in annotations.items() if name.startswith(prefix)}
    index = ImageIndex(root)
    samples = []
    for name, annotation in annotations.items():
        image_id = name.removesuffix(".json")
        image = index.images.get(image_id)
        if image is None:  # not beside the file, which then names the image
            image_id, image = index.find(annotation.image or name, str(files[name]))
        labels = tuple(number for number, label in enumerate(classes) if label in annotation.names())
        samples.append(Sample(image_id, image, labels, _mask(annotation, classes, files[name])))
    index.check(missing)
    dataset = TaggedImages(classes, tuple(samples), f"{root.name}/{split}" if split else root.name)
    unmasked = [sample for sample in dataset if sample.mask is None]
    if len(unmasked) < len(dataset):
        warn_unmasked(dataset, "a shape is not a polygon, rectangle, circle, line or point", unmasked)
    return warn_about_tags(dataset)


def find_labelme(root: Path) -> dict[str, Path]:
    """Return the labelme files at and below a folder, by their path below the folder."""
    files = {name: path for name, path in list_files(root).items() if path.suffix.lower() == ".json"}
    first = next(iter(files.values()), None)
    if first is None or not is_labelme(first):
        return {}
    return files


def is_labelme(path: Path) -> bool:
    """Return whether a JSON file is labelme's: it names its image and holds shapes."""
    with path.open("rb") as file:
        start = file.read(1 << 20)  # shapes and imagePath stand before the image itself, which may be stored inside
    return b'"shapes"' in start and (b'"version"' in start or b'"imagePath"' in start)


class _Shape(NamedTuple):
    label: str
    kind: str | None
    points: list[list[float]]


class _Annotation(NamedTuple):
    """The content of one file: shapes, true flags, the image's (height, width) and name, if given."""

    shapes: list[_Shape]
    flags: list[str]
    size: tuple[Any, Any]
    image: str | None

    def names(self) -> set[str]:
        return {*(shape.label for shape in self.shapes), *self.flags}


def _read(path: Path) -> _Annotation:
    try:
        content = json.loads(path.read_bytes())
        shapes = [
            _Shape(normalize_name(str(shape["label"])), shape.get("shape_type"), shape["points"])
            for shape in content["shapes"]
        ]
        flags = [normalize_name(name) for name, value in (content.get("flags") or {}).items() if value]
        size = content.get("imageHeight"), content.get("imageWidth")
        return _Annotation(shapes, flags, size, content.get("imagePath"))
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        what = f"{type(error).__name__}: {error}"
        raise PPLValueError(f"{path} is not a whole labelme file ({what}); save it again, or take it out") from error


def _classes(root: Path, annotations: dict[str, _Annotation], files: dict[str, Path]) -> tuple[str, ...]:
    """Return the lines of labels.txt, or else all labels, without labelme's names of background and ignored regions."""
    extra = BACKGROUND_NAMES + IGNORE_NAMES
    found = {label: files[name] for name, annotation in annotations.items() for label in annotation.names()}
    listed = root / "labels.txt"
    if not listed.is_file():
        return tuple(sorted(label for label in found if label not in extra))
    classes = tuple(name for _, name in read_lines(listed, "a file with one class name per line") if name not in extra)
    for label, path in found.items():
        if label not in (*classes, *extra):
            raise PPLValueError(f"{path}: label {label!r} is not in {listed}{nearest(label, classes)}")
    return classes


def _mask(annotation: _Annotation, classes: tuple[str, ...], path: Path) -> InstanceMask | None:
    """Return the mask of a file; None if the size, an outline or the place of a flag is unknown."""
    if annotation.flags or not all(isinstance(side, int) and side > 0 for side in annotation.size):
        return None
    values = {name: index for index, name in enumerate(classes)}
    values |= dict.fromkeys(BACKGROUND_NAMES, -1) | dict.fromkeys(IGNORE_NAMES, _IGNORED)
    instances = []
    for shape in annotation.shapes:
        if shape.kind in ("point", "line", "linestrip", "points"):
            continue
        outline = _outline(shape)
        if outline is None:
            return None
        instances.append(Instance(values[shape.label], 0.0, [outline]))  # area 0: drawn in this order
    return InstanceMask(annotation.size, tuple(instances), path.name)


def _outline(shape: _Shape) -> list[float] | None:
    """Return x and y of the corners in turn; None for other kinds of shapes."""
    _, kind, points = shape
    if kind == "rectangle" and len(points) == 2:
        (left, top), (right, bottom) = points
        return [left, top, right, top, right, bottom, left, bottom]
    if kind == "circle" and len(points) == 2:
        (x, y), edge = points
        radius = math.dist((x, y), edge)
        turns = [2 * math.pi * step / 64 for step in range(64)]
        return [number for turn in turns for number in (x + radius * math.cos(turn), y + radius * math.sin(turn))]
    if kind in (None, "polygon", "rectangle"):
        return [number for point in points for number in point]
    return None
