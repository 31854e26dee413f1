"""Read Pascal VOC's layout, also as CVAT exports it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

from ppl.data.dataset import MaskSource, NoSplitError, Sample, TaggedImages, warn_about_tags
from ppl.data.image_index import ImageIndex, Missing, find_listed
from ppl.data.mask_sources import ColorMask, find_color_table, labels_of_mask
from ppl.data.text_files import read_classes
from ppl.errors import PPLFileNotFoundError, PPLValueError, nearest
from ppl.io.listing import list_masks, normalize_name

__all__ = ["VOC_CLASSES", "find_voc", "read_voc"]

VOC_CLASSES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)
"""The classes of Pascal VOC in the order of its masks."""


def read_voc(root: str | os.PathLike[str], split: str | None = None, *, missing: Missing = "error") -> TaggedImages:
    """Read Pascal VOC, or another data set in its layout.

    ::

        JPEGImages/           pictures
        Annotations/          <name>.xml: objects are the tags, "difficult" ones too
        SegmentationClass/    <name>.png masks; or SegmentationClassAug/ for images that only that folder covers
        ImageSets/            Segmentation/<split>.txt, else Main/<split>.txt
        classes.txt           optional: class names in place of VOC's 20
        labelmap.txt          only where colours of the masks mean classes, as in CVAT's "Segmentation mask" export

    Without a folder `Annotations` the tags of an image are the classes of its mask.

    Args:
        root: folder with `JPEGImages`, or one above it (`VOCdevkit`, or the folder that it was unpacked into).
        split: list in `ImageSets`; "Main/train" names the sub-folder too. None reads every image that has an
            annotation (or a mask, where there are no annotations).
        missing: "error" refuses a list with an image that does not exist, "keep" leaves such images in the data set,
            and `check_images` reports them.

    Returns:
        The data set. Its classes are those of `classes.txt`, else of `labelmap.txt`, else VOC's 20.

    Raises:
        PPLFileNotFoundError: if the layout, an image or an annotation is missing; `NoSplitError` if the split is.
        PPLValueError: if an object's name is not among the classes (the message names file and object), or if a class
            is named like the background.
    """
    base = find_voc(Path(root))
    if base is None:
        raise PPLFileNotFoundError(
            f"{root} holds no folder JPEGImages, nor does a VOCdevkit/VOC... below it; check the path"
        )
    colors = find_color_table(base)
    classes = colors.classes if colors else VOC_CLASSES
    if (base / "classes.txt").is_file():
        classes = read_classes(base / "classes.txt")
        colors = colors and colors.reordered(classes, base / "classes.txt")
    index = ImageIndex(base / "JPEGImages")
    masks: dict[str, Path | MaskSource] = {
        image_id: ColorMask(path, colors) if colors else path
        for folder in ("SegmentationClassAug", "SegmentationClass")
        for image_id, path in list_masks(base / folder, index.images).items()
    }
    annotations = None
    if (base / "Annotations").is_dir():
        annotations = {normalize_name(path.stem): path for path in sorted((base / "Annotations").glob("*.xml"))}
    if split is not None:
        image_ids = list(find_listed(_split_path(base, split), index))
    else:
        image_ids = [index.find(name, f"{base}")[0] for name in (masks if annotations is None else annotations)]
    index.check(missing)
    samples = []
    for image_id in image_ids:
        image = index.images.get(image_id, base / "JPEGImages" / f"{image_id}.jpg")
        sample = Sample(image_id, image, (), masks.get(image_id))
        samples.append(_tagged(sample, annotations, base, classes))
    return warn_about_tags(TaggedImages(classes, tuple(samples), f"{base.name}/{split}" if split else base.name))


def find_voc(root: Path) -> Path | None:
    """Return the folder with JPEGImages at or below `root`, None if there is none.

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


def _split_path(base: Path, split: str) -> Path:
    lists = base / "ImageSets"
    for path in (lists / "Segmentation" / f"{split}.txt", lists / "Main" / f"{split}.txt", lists / f"{split}.txt"):
        if path.is_file():
            return path
    there = [path.relative_to(lists).with_suffix("").as_posix() for path in sorted(lists.glob("*/*.txt"))]
    there = [name for name in there if "_" not in name]  # Main holds a list per class and split: cat_train, ...
    raise NoSplitError(f"{lists} has no split {split!r}; there are: {', '.join(there) or 'none'}")


def _tagged(sample: Sample, annotations: Mapping[str, Path] | None, base: Path, classes: tuple[str, ...]) -> Sample:
    """Return the sample with the tags of its annotation, or of its mask where there are no annotations."""
    if annotations is not None:
        path = annotations.get(sample.image_id, base / "Annotations" / f"{sample.image_id}.xml")
        labels = _read_annotation(path, classes)
    elif sample.mask is not None:
        labels = labels_of_mask(sample.read_mask())
    else:
        raise PPLFileNotFoundError(
            f"{base} has no folder Annotations, and {sample.image_id!r} has no mask that its tags could be read from; "
            "take it out of the split, or add one of the two"
        )
    return replace(sample, labels=labels)


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
