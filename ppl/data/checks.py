"""Decode every file of a data set once before the work begins; name unusable files and contradictions."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from ppl.data.dataset import Sample, TaggedImages
from ppl.data.instances import InstanceMask
from ppl.data.mask_sources import MappedMask
from ppl.errors import PPLError, PPLValueError
from ppl.io import BadImageError
from ppl.io.images import DARK, ImageInfo, image_info
from ppl.io.listing import counted, examples, normalize_name
from ppl.parallel import BadFile, current_share, parallel_map, tracked

__all__ = ["check_images", "warn_shared_images"]


def check_images(
    dataset: TaggedImages, *, masks: bool = True, num_workers: int = -1, progress: bool = True
) -> tuple[TaggedImages, list[BadFile]]:
    """Decode every image once and leave out those that cannot be used. The processes of a launch share the work.

    Args:
        dataset: data set.
        masks: check the masks too: readable, of the image's size, class indices 0..K or 255.
        num_workers: number of threads; -1: one per core.
        progress: show a bar if the error stream is a terminal.

    Returns:
        The data set without the bad images, and the bad images with the reason.

    Raises:
        PPLValueError: if no image can be used, or the masks hold only 0 and 255, so that 255 may mean the object.

    Warns:
        UserWarning: for images that are left out; for masks and tags that contradict each other; for pictures with
            masks that an EXIF tag mirrors or turns upside down; for 16-bit pictures with small values only; and for
            TIFFs of several pages. Each warning counts its images and names three.
    """
    share = current_share()
    own = share.part(dataset)
    work = partial(_inspect, num_classes=len(dataset.classes), masks=masks)
    bar = tracked(parallel_map(work, own, num_workers), "checking the images", len(own), show=progress)
    known: dict[_Inspection, _Inspection] = {}  # equal ones are stored once
    found = {image_id: known.setdefault(inspection, inspection) for image_id, inspection in bar}
    if share.count > 1:
        packed = share.gather([(image_id, inspection.pack()) for image_id, inspection in found.items()])
        found = {image_id: _Inspection.unpack(content) for part in packed for image_id, content in part}
    faults = ((image_id, found[image_id].fault) for image_id in dataset.image_ids)
    bad = [BadFile(image_id, fault) for image_id, fault in faults if fault]
    if bad and len(bad) == len(dataset):
        raise PPLValueError(f"{dataset.name}: none of the {len(bad)} images can be used; the first: {bad[0].reason}")
    for file in bad[:_NAMED]:
        warnings.warn(f"{dataset.name}: {file.image_id!r} is left out: {file.reason}", stacklevel=2)
    if len(bad) > _NAMED:
        more = [file.image_id for file in bad[_NAMED:]]
        warnings.warn(f"{dataset.name}: {counted(len(more), 'more image')} left out: {examples(more)}", stacklevel=2)
    good = dataset.without(file.image_id for file in bad)
    inspections = _Inspections(good, found)
    _refuse_black_and_white_masks(dataset, inspections)
    for warning in (
        _contradictions(dataset, inspections),
        _mirrored(inspections),
        _dark(inspections),
        _stacked(inspections),
    ):
        if warning:
            warnings.warn(f"{dataset.name}: {warning}", stacklevel=2)
    return good, bad


def warn_shared_images(train: TaggedImages, val: TaggedImages) -> None:
    """Warn if images of one split are in the other: scores on them are not scores on unseen images."""
    in_train = {normalize_name(image_id) for image_id in train.image_ids}
    shared = [image_id for image_id in val.image_ids if normalize_name(image_id) in in_train]
    if shared:
        what = f"{counted(len(shared), 'image')}: {examples(shared)}"
        warnings.warn(
            f"{train.name} and {val.name} share {what}; scores there are scores on images that were trained on",
            stacklevel=2,
        )


_NAMED = 3
"""Number of bad images that have a warning of their own."""

_SMOOTHED = 5
"""Number of values without a class from which on smoothed edges are more likely than forgotten classes."""


@dataclass(frozen=True, slots=True)
class _Inspection:
    """What one image and its mask hold.

    Attributes:
        fault: reason why the image cannot be used, or None.
        info: size, EXIF orientation and largest 16-bit value; None if the image cannot be used.
        values: values of the mask; None without a mask.
    """

    fault: str | None
    info: ImageInfo | None = None
    values: frozenset[int] | None = None

    def pack(self) -> list[Any]:
        """Return the content in a form that `json` can write, to send it to other processes."""
        return [self.fault, self.info, None if self.values is None else sorted(self.values)]

    @staticmethod
    def unpack(packed: Sequence[Any]) -> _Inspection:
        """Return what was packed."""
        fault, info, values = packed
        if info is not None:
            size, *others = info
            info = ImageInfo(tuple(size), *others)
        return _Inspection(fault, info, None if values is None else frozenset(values))


@dataclass(frozen=True)
class _Inspections:
    """Iterate over usable images and their inspections. Every loop makes the samples anew, since they take memory."""

    images: TaggedImages
    found: Mapping[str, _Inspection]

    def __iter__(self) -> Iterator[tuple[Sample, _Inspection]]:
        return ((sample, self.found[sample.image_id]) for sample in self.images)


def _inspect(sample: Sample, num_classes: int, masks: bool) -> tuple[str, _Inspection]:
    return sample.image_id, _inspection(sample, num_classes, masks)


def _inspection(sample: Sample, num_classes: int, masks: bool) -> _Inspection:
    try:
        sample.read_image(at_least=1)  # a JPEG at 1/8 of its size: every byte is still decoded
        info = image_info(sample.image)
        values = _mask_values(sample, info, num_classes) if masks and sample.mask is not None else None
        return _Inspection(None, info, values)
    except PPLError as error:
        return _Inspection(fault=str(error))


def _mask_values(sample: Sample, info: ImageInfo, num_classes: int) -> frozenset[int]:
    mask = sample.read_mask()
    if mask.shape != info.size:
        raise BadImageError(_other_size(sample, mask.shape, info))
    values = frozenset(np.flatnonzero(np.bincount(mask.ravel(), minlength=256)).tolist())
    wrong = [value for value in values if value > num_classes and value != 255]
    if len(wrong) > _SMOOTHED:
        what = f"the mask of {sample.image} holds {len(wrong)} values without a class"
        raise BadImageError(f"{what}: was it resized with smooth edges, or stored as JPEG? Write class indices alone")
    if wrong:
        raise BadImageError(f"the mask of {sample.image} holds index {max(wrong)}, but there are {num_classes} classes")
    return values


def _other_size(sample: Sample, size: tuple[int, ...], info: ImageInfo) -> str:
    source = sample.mask.mask if isinstance(sample.mask, MappedMask) else sample.mask
    if info.orientation > 4 and size == info.size[::-1]:
        return (
            f"the mask of {sample.image} is {size} but the image is {info.size} (height, width): the EXIF orientation "
            f"{info.orientation} turns the image, and the mask was drawn before; turn the mask, or remove the EXIF tag"
        )
    if isinstance(source, InstanceMask):
        return (
            f"{source.source} says that {sample.image} is {size} but the image is {info.size} (height, width); use "
            "the pictures that the annotations were drawn on"
        )
    fix = "draw the mask again"
    if size[0] * info.size[1] == size[1] * info.size[0]:
        fix = "resize the mask with nearest-neighbour interpolation, which keeps class indices"
    return f"the mask of {sample.image} is {size} but the image is {info.size} (height, width); {fix}"


def _refuse_black_and_white_masks(dataset: TaggedImages, inspections: _Inspections) -> None:
    """Raise PPLValueError if no mask holds a class, some hold 255, and the meaning of 255 is not set."""
    masks = [(sample, found.values) for sample, found in inspections if found.values is not None]
    for sample, values in masks:
        if values - {0, 255} or (isinstance(sample.mask, MappedMask) and sample.mask.defines(255)):
            return
    white = [sample.image_id for sample, values in masks if 255 in values and sample.labels]
    if white:
        fix = 'set white to "object" or to "ignore"'
        if len(dataset.classes) > 1:
            fix = "write the index of the class into the masks: line i of classes.txt is i"
        raise PPLValueError(
            f"{dataset.name}: the only values of {counted(len(masks), 'mask')} are 0 and 255: object or ignore? Pixels "
            f"of 255 are not scored, yet {examples(white)} have tags; {fix}"
        )


def _contradictions(dataset: TaggedImages, inspections: _Inspections) -> str | None:
    masks = [(sample, found.values - {0, 255}) for sample, found in inspections if found.values is not None]
    differing = [(sample, values) for sample, values in masks if values != {label + 1 for label in sample.labels}]
    if not differing:
        return None

    def names(labels: Iterable[int]) -> str:
        return ", ".join(dataset.classes[label] for label in sorted(labels)) or "no class"

    shown = [
        f"{sample.image_id!r} (mask: {names(value - 1 for value in values)}; tags: {names(sample.labels)})"
        for sample, values in differing[:_NAMED]
    ]
    return (
        f"the masks of {len(differing)} of {len(masks)} images do not show the classes that their tags name: "
        f"{', '.join(shown)}; scores count what the masks show{_shift(inspections)}"
    )


def _shift(inspections: _Inspections) -> str:
    """Return a hint if masks and tags agree when every value of the masks is one too small or too large."""
    tagged = [
        (found.values - {255}, {label + 1 for label in sample.labels})
        for sample, found in inspections
        if found.values is not None and sample.labels
    ]
    if len({value for _, wanted in tagged for value in wanted}) < 2:  # one class may as well be on no mask
        return ""
    for step, what in ((1, "too small: 0 is the first class in them"), (-1, "too large: 2 is the first class in them")):
        if all({value + step for value in values} - {0} == wanted for values, wanted in tagged):
            return f"; all would agree if the values were not one {what}, and in a mask 0 is the background"
    return ""


def _mirrored(inspections: _Inspections) -> str | None:
    """Name pictures whose size does not tell whether the mask was drawn before or after the EXIF orientation."""
    masked = [(sample, found.info) for sample, found in inspections if found.values is not None and found.info]
    mirrored = [
        sample.image_id
        for sample, info in masked
        if info.orientation in (2, 3, 4) or (info.orientation > 4 and info.size[0] == info.size[1])
    ]
    if not mirrored:
        return None
    return (
        f"{counted(len(mirrored), 'picture')} with a mask and an EXIF orientation of 2, 3 or 4 (or square and turned): "
        f"{examples(mirrored)}; pictures are turned upright, masks are not; if masks were drawn on the stored pixels, "
        "remove the EXIF tags"
    )


def _stacked(inspections: _Inspections) -> str | None:
    stacked = [sample.image_id for sample, found in inspections if found.info is not None and found.info.pages > 1]
    if not stacked:
        return None
    what = f"{counted(len(stacked), 'picture')} of several pages, of which the first alone is read: {examples(stacked)}"
    return f"{what}; save the page that is meant, or bands that were stored as pages as one RGB picture"


def _dark(inspections: _Inspections) -> str | None:
    wide = [
        (sample.image_id, found.info.largest)
        for sample, found in inspections
        if found.info is not None and found.info.largest is not None and not sample.value_range
    ]
    top = max((value for _, value in wide), default=0)
    if not 0 < top <= DARK:
        return None
    return (
        f"{counted(len(wide), 'picture')} of 16 bits without a value above {top}, nearly black when scaled by 65535: "
        f"{examples(name for name, _ in wide)}; set value_range to the camera's largest value, "
        f"{(1 << top.bit_length()) - 1} for example"
    )
