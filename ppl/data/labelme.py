"""Read labelme's layout: a JSON file of outlines beside every image."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

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
    contents = {name: _read(path) for name, path in files.items()}
    classes = _classes(root, contents, files)
    if split is not None:
        splits = [name for name in SPLIT_NAMES if any(file.startswith(f"{name}/") for file in files)]
        folder = find_split(splits, split, root)
        contents = {name: content for name, content in contents.items() if name.startswith(f"{folder}/")}
    index = ImageIndex(root)
    samples = []
    for name, content in contents.items():
        image_id = name.removesuffix(".json")
        image = index.images.get(image_id)
        if image is None:  # the file names its image
            image_id, image = index.find(str(content.get("imagePath") or name), str(files[name]))
        samples.append(Sample(image_id, image, _labels(content, classes), _mask(content, classes, files[name])))
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
    return b'"shapes"' in start and b'"version"' in start


def _read(path: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(path.read_bytes())
        shapes = [(shape["label"], shape.get("shape_type", "polygon"), shape["points"]) for shape in content["shapes"]]
        flags = [name for name, value in (content.get("flags") or {}).items() if value]
        size = content.get("imageHeight"), content.get("imageWidth")
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        what = f"{type(error).__name__}: {error}"
        raise PPLValueError(f"{path} is not a whole labelme file ({what}); save it again, or take it out") from error
    return {"shapes": shapes, "flags": flags, "size": size, "imagePath": content.get("imagePath")}


def _classes(root: Path, contents: dict[str, dict[str, Any]], files: dict[str, Path]) -> tuple[str, ...]:
    """Return the lines of labels.txt, or else all labels, without labelme's names of background and ignored regions."""
    extra = BACKGROUND_NAMES + IGNORE_NAMES
    listed = root / "labels.txt"
    names = {
        normalize_name(str(label)): files[name]
        for name, content in contents.items()
        for label in (*(shape[0] for shape in content["shapes"]), *content["flags"])
    }
    if not listed.is_file():
        return tuple(sorted(name for name in names if name not in extra))
    classes = tuple(name for _, name in read_lines(listed, "a file with one class name per line") if name not in extra)
    for name, path in names.items():
        if name not in (*classes, *extra):
            raise PPLValueError(f"{path}: label {name!r} is not in {listed}{nearest(name, classes)}")
    return classes


def _labels(content: dict[str, Any], classes: tuple[str, ...]) -> tuple[int, ...]:
    names = {normalize_name(str(name)) for name in (*(shape[0] for shape in content["shapes"]), *content["flags"])}
    return tuple(index for index, name in enumerate(classes) if name in names)


def _mask(content: dict[str, Any], classes: tuple[str, ...], path: Path) -> InstanceMask | None:
    """Return the mask of a file; None if the size, an outline or the place of a flag is unknown."""
    if content["flags"] or not all(isinstance(side, int) and side > 0 for side in content["size"]):
        return None
    values = {name: index for index, name in enumerate(classes)}
    values |= dict.fromkeys(BACKGROUND_NAMES, -1) | dict.fromkeys(IGNORE_NAMES, _IGNORED)
    instances = []
    for label, kind, points in content["shapes"]:
        if kind in ("point", "line", "linestrip", "points"):
            continue
        outline = _outline(kind, points)
        if outline is None:
            return None
        instances.append(Instance(values[normalize_name(str(label))], 0.0, [outline]))  # area 0: drawn in this order
    return InstanceMask(content["size"], tuple(instances), path.name)


def _outline(kind: str | None, points: list[list[float]]) -> list[float] | None:
    """Return x and y of the corners in turn; None for other kinds of shapes."""
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
