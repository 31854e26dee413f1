"""Read YOLO's layout: one text file of boxes or polygons per image."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import yaml

from ppl.data.dataset import MaskSource, Sample, TaggedImages, warn_about_tags, warn_unmasked
from ppl.data.image_index import ImageIndex, Missing
from ppl.data.instances import InstanceMask
from ppl.data.splits import SPLIT_NAMES, find_split
from ppl.data.text_files import read_classes, read_lines, read_text
from ppl.errors import PPLFileNotFoundError, PPLValueError
from ppl.io import BadImageError, image_size
from ppl.io.archives import FilePath
from ppl.io.listing import normalize_name, without_suffix

__all__ = ["YoloMask", "find_yolo", "read_yolo"]


@dataclass(frozen=True)
class YoloMask:
    """A class mask drawn from the polygons of a YOLO text file.

    Attributes:
        labels: text file: lines of class index, x1, y1, x2, y2, ... in 0..1 of the image's width and height.
        image: image file, for the size.
    """

    labels: Path
    image: FilePath

    def read(self) -> npt.NDArray[np.uint8]:
        """Return (H, W) uint8 class indices, 0 background; see `InstanceMask.read` for errors."""
        height, width = image_size(self.image)
        instances = []
        for label, numbers in _rows(self.labels):
            corners = np.asarray(numbers).reshape(-1, 2) * (width, height)
            instances.append((label, _area(corners), [corners.ravel().tolist()]))
        return InstanceMask((height, width), tuple(instances), str(self.labels)).read()


def read_yolo(root: str | os.PathLike[str], split: str | None = None, *, missing: Missing = "error") -> TaggedImages:
    """Read a data set for YOLO detection or segmentation.

    ::

        data.yaml       names, and train, val, test: folders of images or lists of their paths
        classes.txt     in place of data.yaml: one class per line, with images/ and labels/
        images/train/   images, or train/images/
        labels/train/   <name>.txt, or train/labels/: lines of class, x, y, width, height or class, x1, y1, x2, y2, ...

    An image without a text file, or with an empty one, shows none of the classes. An image has a mask if all lines of
    its text file are polygons.

    Args:
        root: folder that holds `data.yaml` or `classes.txt`.
        split: key of `data.yaml`; None reads all images.
        missing: "error" refuses a list with an image that does not exist, "keep" leaves such images in the data set,
            and `check_images` reports them.

    Returns:
        The data set; image ids are `<split>/<name>`.

    Raises:
        PPLFileNotFoundError: if the layout or an image is missing; `NoSplitError` if the split is.
        PPLValueError: if `data.yaml` or a line of a text file is faulty, or the data set is one of key points.
    """
    root = Path(root)
    config = find_yolo(root)
    if config is None:
        raise PPLFileNotFoundError(f"{root} holds no data.yaml with names and no classes.txt beside labels/")
    classes, splits = _read_config(config)
    if not splits and split is None:
        splits = {"": [root / "images"]}
    samples: dict[FilePath, Sample] = {}
    for name in splits if split is None else [find_split(splits, split, root)]:
        for place in splits[name]:
            for image_id, image in _images(place, missing).items():
                samples.setdefault(image, _sample(f"{name}/{image_id}" if name else image_id, image, len(classes)))
    outlined = any(sample.mask is not None and sample.labels for sample in samples.values())
    kept = tuple(sample if outlined else replace(sample, mask=None) for sample in samples.values())
    dataset = TaggedImages(classes, kept, f"{root.name}/{split}" if split else root.name)
    if outlined:
        unmasked = [sample for sample in dataset if sample.mask is None]
        warn_unmasked(dataset, "they have no text file with polygons alone", unmasked)
    return warn_about_tags(dataset)


def find_yolo(root: Path) -> Path | None:
    """Return `data.yaml`, or another YAML file with `names` and `train`, or the `classes.txt` beside labels/."""
    for path in [root / "data.yaml", *sorted(root.glob("*.yaml")), *sorted(root.glob("*.yml"))]:
        if path.is_file():
            text = read_text(path, "a YOLO configuration")
            if "names:" in text and ("train:" in text or "val:" in text):
                return path
    if (root / "classes.txt").is_file() and (root / "labels").is_dir() and (root / "images").is_dir():
        return root / "classes.txt"
    return None


def _read_config(path: Path) -> tuple[tuple[str, ...], dict[str, list[Path]]]:
    """Return the classes and the folders or lists of every split."""
    if path.suffix == ".txt":
        return read_classes(path), {}
    try:
        content = yaml.safe_load(read_text(path, "a YOLO configuration"))
        if "kpt_shape" in content:
            raise PPLValueError(f"{path} is of key points (kpt_shape), not of boxes or polygons; use another export")
        names: Any = content["names"]
        if isinstance(names, dict):
            if sorted(names) != list(range(len(names))):
                raise PPLValueError(f"{path}: names are numbered {sorted(names)}; number them 0, 1, 2, ...")
            names = [names[number] for number in range(len(names))]
        classes = tuple(normalize_name(str(name)) for name in names)
        base = path.parent / (content.get("path") or "")
        given = {key: content[key] for key in SPLIT_NAMES if content.get(key)}
        splits = {
            key: [_existing(path, base, str(place)) for place in ([value] if isinstance(value, str) else value)]
            for key, value in given.items()
        }
    except (yaml.YAMLError, KeyError, TypeError, AttributeError) as error:
        raise PPLValueError(f"{path} is not a YOLO configuration with names ({error}); mend it") from error
    return classes, {key: [place for place in places if place] for key, places in splits.items() if any(places)}


def _existing(path: Path, base: Path, place: str) -> Path | None:
    """Return the folder or list that an entry means; paths of another machine or folder are found by their end."""
    parts = [part for part in place.replace("\\", "/").split("/") if part not in ("", ".", "..")]
    candidates = [base / place, path.parent / place]
    candidates += [path.parent.joinpath(*parts[start:]) for start in range(len(parts))]
    return next((candidate for candidate in candidates if candidate.exists()), None)


def _images(place: Path, missing: Missing) -> dict[str, FilePath]:
    if place.is_dir():
        return dict(ImageIndex(place).images)
    index = ImageIndex(place.parent)
    found = dict(index.find(name, f"{place} line {number}") for number, name in read_lines(place, "a list of images"))
    index.check(missing)
    return found


def _sample(image_id: str, image: FilePath, num_classes: int) -> Sample:
    path = _labels_path(image)
    rows = _rows(path) if path.is_file() else []
    for label, _ in rows:
        if not 0 <= label < num_classes:
            raise PPLValueError(f"{path}: class {label} is outside 0..{num_classes - 1}, the {num_classes} names")
    mask: MaskSource | None = None
    if all(len(numbers) > 4 for _, numbers in rows) and path.is_file():
        mask = YoloMask(path, image)
    return Sample(image_id, image, tuple(sorted({label for label, _ in rows})), mask)


def _labels_path(image: FilePath) -> Path:
    """Return the text file of an image: the last folder `images` in its path becomes `labels`."""
    parts = list(Path(image).parts)
    for position in range(len(parts) - 2, -1, -1):
        if parts[position] == "images":
            parts[position] = "labels"
            break
    path = Path(*parts)
    return path.with_name(without_suffix(path.name) + ".txt")


def _rows(path: Path) -> list[tuple[int, list[float]]]:
    """Return class index and numbers of every line; the errors name file and line."""
    rows = []
    for number, line in read_lines(path, "one object per line"):
        try:
            label, *numbers = line.split()
            values = [float(value) for value in numbers]
            label = label.removesuffix(".0")
            if int(label) < 0 or len(values) < 4 or (len(values) > 4 and (len(values) < 6 or len(values) % 2)):
                raise ValueError
        except ValueError:
            what = "is not a class index with x, y, width, height or with three corners or more"
            raise BadImageError(f"{path} line {number}: {line[:60]!r} {what}") from None
        if not all(-1 <= value <= 2 for value in values):  # a little outside is rounding
            what = "holds pixels; write x and y as fractions of the image's width and height"
            raise BadImageError(f"{path} line {number}: {line[:60]!r} {what}")
        rows.append((int(label), values))
    return rows


def _area(corners: npt.NDArray[np.float64]) -> float:
    x, y = corners.T
    return float(abs(x @ np.roll(y, 1) - y @ np.roll(x, 1)) / 2)
