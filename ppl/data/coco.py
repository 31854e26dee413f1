"""Read COCO's layout, also as Roboflow, CVAT and Label Studio export it."""

from __future__ import annotations

import json
import math
import os
import warnings
from array import array
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ppl.data.dataset import BACKGROUND_NAMES, IGNORE_NAMES, Sample, TaggedImages, warn_about_tags, warn_unmasked
from ppl.data.image_index import ImageIndex, Missing
from ppl.data.instances import Instance, InstanceMask
from ppl.data.splits import find_split
from ppl.errors import PPLFileNotFoundError, PPLValueError
from ppl.io.listing import examples, normalize_name, without_suffix

__all__ = ["coco_masks", "find_coco", "read_coco", "read_coco_file"]

_ROBOFLOW = "_annotations.coco.json"

CocoImage = tuple[str, tuple[Any, Any], list[Instance]]


def read_coco(root: str | os.PathLike[str], split: str | None = None, *, missing: Missing = "error") -> TaggedImages:
    """Read COCO, or another data set with its JSON.

    ::

        annotations/instances_<split>.json    with <split>/, images/<split>/ or images/: COCO, CVAT
        <split>/_annotations.coco.json        with the images beside it: Roboflow
        result.json                           with images/: Label Studio
        annotations/<split>.json              or <split>.json, where there is none of the above

    Args:
        root: folder that holds the above.
        split: for example "val2017"; None takes the only annotation file.
        missing: "error" refuses a file with an image that does not exist, "keep" leaves such images in the data set,
            and `check_images` reports them.

    Returns:
        The data set: classes by rising category id, tags from the instances, images without an instance included
        (`labels` is empty), masks drawn on demand (`InstanceMask`). An image has no mask if one of its instances has
        no outline; no image has one if the file holds only boxes.

    Raises:
        PPLFileNotFoundError: if the layout or an image is missing; `NoSplitError` if the split is.
        PPLValueError: if the file is not COCO instances JSON, there are several splits and none is named, two file
            names differ only in their extension, one leads out of the folder, or a category is named like the
            background.

    Warns:
        UserWarning: if images have no mask because an instance has no outline (counted and named), or a class is on no
            image or on every image.
    """
    root = Path(root)
    found = find_coco(root) or _other_json(root)
    if not found:
        raise PPLFileNotFoundError(
            f"{root} holds no annotations/instances_*.json, no */{_ROBOFLOW} and no result.json; check the path"
        )
    if split is None:
        if len(found) > 1:
            raise PPLValueError(f"{root} has the splits {', '.join(found)}; name one of them")
        split = next(iter(found))
    path = found[find_split(found, split, root)]
    classes, images = read_coco_file(path)
    if not images:
        raise PPLValueError(f"{path} lists no images; choose another split")
    index = ImageIndex(_image_folder(root, path, split), unique=False)
    outlined = any(instance.outline is not None for _, _, own in images for instance in own)
    samples = []
    for name, size, own in images:
        image_id, image = index.find(name, path.name)
        whole = outlined and all(instance.outline is not None for instance in own)
        labels = tuple(sorted({instance.label for instance in own}))
        samples.append(Sample(image_id, image, labels, _mask(size, own, path) if whole else None))
    dataset = TaggedImages(classes, tuple(samples), f"{root.name}/{split}")
    index.check(missing)
    if outlined:
        reason = f"an instance has no outline in {path.name}"
        warn_unmasked(dataset, reason, [sample for sample in dataset if sample.mask is None])
    return warn_about_tags(dataset)


def read_coco_file(path: Path) -> tuple[tuple[str, ...], list[CocoImage]]:
    """Read classes, images and instances of an annotation file; the images need not exist.

    Returns:
        The classes by rising category id, and of every image its file name, its size (height, width) and its instances.

    Raises:
        PPLFileNotFoundError: if there is no such file.
        PPLValueError: if the file is not COCO instances JSON.
    """
    try:
        content = json.loads(path.read_bytes())
        categories = _classes(content)
        instances = _instances(
            path, content, {str(category["id"]): number for number, category in enumerate(categories)}
        )
        classes = tuple(normalize_name(category["name"]) for category in categories)
        images = [
            (image["file_name"], (_side(image.get("height")), _side(image.get("width"))), _own(instances, image))
            for image in content["images"]
        ]
    except FileNotFoundError as error:
        raise PPLFileNotFoundError(f"no annotation file at {path}") from error
    except PPLValueError:
        raise
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        what = f"{type(error).__name__}: {error}"
        raise PPLValueError(f"{path} is not a whole COCO instances file ({what}); download it again") from error
    return classes, images


def coco_masks(path: Path) -> tuple[tuple[str, ...], dict[str, InstanceMask | None]]:
    """Return the classes of an annotation file and, by image id, the masks; None where an instance has no outline."""
    classes, images = read_coco_file(path)
    masks = {}
    for name, size, own in images:
        whole = all(instance.outline is not None for instance in own)
        masks[without_suffix(normalize_name(name.replace("\\", "/")))] = _mask(size, own, path) if whole else None
    return classes, masks


def find_coco(root: Path) -> dict[str, Path]:
    """Return the annotation file of every split of a folder in one of the named layouts."""
    for found in (
        {path.stem.removeprefix("instances_"): path for path in sorted(root.glob("annotations/instances_*.json"))},
        {path.parent.name: path for path in sorted(root.glob(f"*/{_ROBOFLOW}"))},
        {path.stem: path for path in (root / _ROBOFLOW, root / "result.json") if path.is_file()},
    ):
        if found:
            return found
    return {}


def _other_json(root: Path) -> dict[str, Path]:
    return {path.stem: path for path in sorted([*root.glob("*.json"), *root.glob("annotations/*.json")])}


def _classes(content: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the categories that are classes, by rising id.

    Some tools list a background or an "ignore" category without any instance; Roboflow puts a category in front that
    groups the others.
    """
    categories = content["categories"]
    used = {str(note["category_id"]) for note in content["annotations"]}
    groups = {category.get("supercategory") for category in categories if category.get("supercategory") != "none"}
    extra = [
        category["id"]
        for category in categories
        if category["name"].strip().lower() in BACKGROUND_NAMES + IGNORE_NAMES
        or (category.get("supercategory") == "none" and category["name"] in groups)
    ]
    kept = [category for category in categories if str(category["id"]) in used or category["id"] not in extra]
    return sorted(kept, key=lambda category: int(category["id"]))


def _instances(path: Path, content: Mapping[str, Any], index: Mapping[str, int]) -> dict[str, list[Instance]]:
    """Return the instances by the id of their image, which some tools write as a number here and as text there."""
    instances: defaultdict[str, list[Instance]] = defaultdict(list)
    known, lost = {str(image["id"]) for image in content["images"]}, []
    for note in content["annotations"]:
        image_id, category = str(note["image_id"]), str(note["category_id"])
        if category not in index:
            what = f"annotation {note.get('id')!r} has category_id {note['category_id']!r}"
            raise PPLValueError(f"{path}: {what}, and no category has that id; add the category, or take it out")
        if image_id not in known:
            lost.append(image_id)
            continue
        outline = note.get("segmentation")
        if not isinstance(outline, dict) and not any(outline or ()):
            outline = None  # a box is all that is known
        elif isinstance(outline, list):
            outline = [_packed(polygon) for polygon in outline]
        box = note.get("bbox")
        area = float(note.get("area") or 0.0)
        instances[image_id].append(Instance(index[category], area, outline, tuple(box) if box else None))
    if lost:
        warnings.warn(
            f"{path.name}: {len(lost)} of {len(content['annotations'])} annotations are left out, because no image has "
            f"their image_id: {examples(dict.fromkeys(lost))}",
            stacklevel=4,
        )
    return dict(instances)


def _own(instances: Mapping[str, list[Instance]], image: Mapping[str, Any]) -> list[Instance]:
    return instances.get(str(image["id"]), [])


def _side(value: Any) -> Any:
    """Return the height or width of an image as a whole number, also if it is written as text or with a fraction."""
    return int(value) if isinstance(value, (str, float)) and float(value).is_integer() else value


def _packed(polygon: Any) -> Any:
    """Return the corners in a third of the memory of a list of numbers; what is no such list stays."""
    numbers = isinstance(polygon, list) and all(isinstance(number, (int, float)) for number in polygon)
    whole = numbers and len(polygon) >= 6 and len(polygon) % 2 == 0 and all(map(math.isfinite, polygon))
    return array("d", polygon) if whole else polygon  # `InstanceMask` names the fault of the others


def _mask(size: tuple[Any, Any], instances: Sequence[Instance], path: Path) -> InstanceMask:
    if not all(isinstance(side, int) and side > 0 for side in size):
        raise PPLValueError(
            f"{path} is not a whole COCO instances file: an image is {size} (height, width) in it; write "
            "the size of every image"
        )
    return InstanceMask(size, tuple(instances), path.name)


def _image_folder(root: Path, path: Path, split: str) -> Path:
    if path.name == _ROBOFLOW:
        return path.parent
    for folder in (root / split, root / "images" / split, root / "images"):
        if folder.is_dir():
            return folder
    raise PPLFileNotFoundError(f"{root} has neither {split}/ nor images/; put the image files there")
