"""Pascal VOC's own layout, as its archives unpack."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal
from xml.etree import ElementTree

from ppl.data.dataset import NoSplitError, Sample, TaggedImages, warn_absent_classes
from ppl.data.folder import read_classes, read_list
from ppl.errors import PPLFileNotFoundError, PPLValueError, nearest
from ppl.io import list_images
from ppl.io.listing import list_masks, normalize_name

__all__ = ["VOC_CLASSES", "find_voc", "read_voc"]

VOC_CLASSES = (
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "diningtable",
    "dog",
    "horse",
    "motorbike",
    "person",
    "pottedplant",
    "sheep",
    "sofa",
    "train",
    "tvmonitor",
)


def read_voc(
    root: str | os.PathLike[str], split: str | None = None, *, missing: Literal["error", "keep"] = "error"
) -> TaggedImages:
    """Read Pascal VOC, or other data in its layout.

    Tags are the objects of `Annotations/<name>.xml`, "difficult" ones too. Masks are `SegmentationClass/<name>.png`,
    or `SegmentationClassAug/<name>.png` where only that exists.

    Args:
        root: the folder with `JPEGImages`, or one above it (`VOCdevkit`, or the folder that it was unpacked into).
        split: a list in `ImageSets/Segmentation`, else in `ImageSets/Main`; "Main/train" names the folder too. None
            reads every image that has an annotation.
        missing: whether an image that is not there is an error or is kept for `check_images` to report.

    Returns:
        The data set. Its classes are VOC's 20, or the lines of a `classes.txt` beside `JPEGImages`.

    Raises:
        PPLFileNotFoundError: if the layout, an image or an annotation is missing; `NoSplitError` if the split is.
        PPLValueError: if an object's name is not among the classes, and the message names file and object; or if a
            class is named "background".
    """
    base = find_voc(Path(root))
    if base is None:
        raise PPLFileNotFoundError(
            f"{root} holds no folder JPEGImages, nor does a VOCdevkit/VOC... below it; check the path"
        )
    own_classes = base / "classes.txt"
    classes = read_classes(own_classes) if own_classes.is_file() else VOC_CLASSES
    images = list_images(base / "JPEGImages")
    notes = {normalize_name(path.stem): path for path in sorted((base / "Annotations").glob("*.xml"))}
    masks = list_masks(base / "SegmentationClassAug", images) | list_masks(base / "SegmentationClass", images)
    image_ids = _read_split(base, split) if split is not None else list(notes)
    samples = []
    for image_id in image_ids:
        if image_id not in images and missing == "error":
            raise PPLFileNotFoundError(f"{base / 'JPEGImages'} has no file for {image_id!r}; unpack the archive again")
        labels = _read_annotation(notes.get(image_id, base / "Annotations" / f"{image_id}.xml"), classes)
        image = images.get(image_id, base / "JPEGImages" / f"{image_id}.jpg")
        samples.append(Sample(image_id, image, labels, masks.get(image_id)))
    return warn_absent_classes(TaggedImages(classes, tuple(samples), f"{base.name}/{split}" if split else base.name))


def find_voc(root: Path) -> Path | None:
    """The folder with JPEGImages at or below `root`, None if there is none.

    Raises:
        PPLValueError: if there are several years to choose from.
    """
    for pattern in (".", "VOC*", "VOCdevkit/VOC*"):
        found = sorted({path.parent for path in root.glob(f"{pattern}/JPEGImages")})
        if len(found) > 1:
            raise PPLValueError(f"{root} holds {', '.join(path.name for path in found)}; name one of these folders")
        if found:
            return found[0].resolve()
    return None


def _read_split(base: Path, split: str) -> list[str]:
    lists = base / "ImageSets"
    for path in (lists / "Segmentation" / f"{split}.txt", lists / "Main" / f"{split}.txt", lists / f"{split}.txt"):
        if path.is_file():
            return list(read_list(path))
    there = [path.relative_to(lists).with_suffix("").as_posix() for path in sorted(lists.glob("*/*.txt"))]
    there = [name for name in there if "_" not in name]  # Main's one list per class would drown the rest
    raise NoSplitError(f"{lists} has no split {split!r}; there are: {', '.join(there) or 'none'}")


def _read_annotation(path: Path, classes: tuple[str, ...]) -> tuple[int, ...]:
    try:
        tree = ElementTree.parse(path)
    except FileNotFoundError as error:
        raise PPLFileNotFoundError(f"{path} is missing; every image of a split needs its tags") from error
    except ElementTree.ParseError as error:
        raise PPLValueError(f"{path} is not whole XML ({error}); unpack the archive again") from error
    labels = set()
    for name in (normalize_name(element.text or "").strip() for element in tree.iterfind("object/name")):
        if name not in classes:
            fix = nearest(name, classes)
            raise PPLValueError(
                f"{path}: object {name!r} is not among the {len(classes)} classes of this data set{fix}"
            )
        labels.add(classes.index(name))
    return tuple(sorted(labels))
