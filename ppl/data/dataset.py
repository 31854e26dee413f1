"""Images with their tags: the type that every reader returns and every other part of the library takes."""

from __future__ import annotations

import operator
import os
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Protocol, overload, runtime_checkable

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from ppl.errors import PPLFileNotFoundError, PPLTypeError, PPLValueError, nearest
from ppl.io import read_image, read_mask
from ppl.io.archives import FilePath
from ppl.io.images import ImageFile
from ppl.io.listing import examples, normalize_name
from ppl.parallel.share import Share

__all__ = ["MaskSource", "NoSplitError", "Sample", "TaggedImages", "warn_about_tags", "warn_unmasked"]

MAX_CLASSES = 254
"""Masks are 8-bit images in which 0 is the background and 255 is "ignore"."""

BACKGROUND_NAMES = ("background", "_background_", "__background__")
IGNORE_NAMES = ("__ignore__", "_ignore_")


class NoSplitError(PPLFileNotFoundError):
    """A data set has no split of the given name."""


@runtime_checkable
class MaskSource(Protocol):
    """A mask that is computed on request instead of read from a file of class indices."""

    def read(self) -> npt.NDArray[np.uint8]:
        """Return (H, W) uint8 class indices, 0 background, 255 ignore."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One image with its tags and, if known, its mask.

    Attributes:
        image_id: unique name in the data set: the path of the image without extension, with "/" between folders.
        image: image file, which may lie in a tar archive.
        labels: class indices 0..K-1 in rising order; empty if the image shows none of the classes.
        mask: file or source of the mask, None if there is none. Class *c* has the value *c*+1, the background 0.
        value_range: largest value of 16-bit pictures, see `ppl.io.read_image`; None for the full range.

    Raises:
        PPLTypeError: if a label is not an integer.
    """

    image_id: str
    image: FilePath
    labels: tuple[int, ...]
    mask: Path | MaskSource | None = None
    value_range: int | None = None

    def __post_init__(self) -> None:
        try:
            labels = tuple(operator.index(label) for label in self.labels)
        except TypeError as error:
            what = f"image {self.image_id!r} has labels {self.labels!r}"
            raise PPLTypeError(f"{what}, which must be a tuple of class indices; (0, 2) for example") from error
        object.__setattr__(self, "labels", labels)

    @property
    def picture(self) -> ImageFile:
        """The image file with its `value_range`; only `check_images` warns if the picture is dark."""
        return ImageFile(self.image, self.value_range)

    def read_image(self, *, at_least: int | tuple[int, int] | None = None) -> Image.Image:
        """Return the picture as upright RGB; see `ppl.io.read_image`."""
        return read_image(self.picture, at_least=at_least)

    def read_mask(self) -> npt.NDArray[np.uint8]:
        """Return the mask as (H, W) uint8 class indices, 0 background, 255 ignore.

        Raises:
            PPLValueError: if the image has no mask.
        """
        if self.mask is None:
            raise PPLValueError(f"image {self.image_id!r} has no mask; use a split with masks")
        return self.mask.read() if isinstance(self.mask, MaskSource) else read_mask(self.mask)


class Samples(Sequence[Sample]):
    """Samples that are made when they are asked for, since one takes half a kilobyte and there may be millions.

    Args:
        image_ids: the image ids.
        labels: the labels of each image.
        images: image file by image id.
        masks: mask by image id, for the images that have one.
        value_ranges: value range by image id, for the images that have one.
    """

    def __init__(
        self,
        image_ids: Sequence[str],
        labels: Sequence[tuple[int, ...]],
        images: Mapping[str, FilePath],
        masks: Mapping[str, Path | MaskSource | None],
        value_ranges: Mapping[str, int | None],
    ) -> None:
        self.image_ids, self.labels = tuple(image_ids), tuple(labels)
        self._images, self._masks, self._value_ranges = images, masks, value_ranges

    @staticmethod
    def of(samples: Iterable[Sample]) -> Samples:
        """Return samples in this form."""
        samples = list(samples)
        known: dict[tuple[int, ...], tuple[int, ...]] = {}  # equal labels are stored once
        return Samples(
            [sample.image_id for sample in samples],
            [known.setdefault(sample.labels, sample.labels) for sample in samples],
            {sample.image_id: sample.image for sample in samples},
            {sample.image_id: sample.mask for sample in samples if sample.mask is not None},
            {sample.image_id: sample.value_range for sample in samples if sample.value_range is not None},
        )

    def __len__(self) -> int:
        return len(self.image_ids)

    @overload
    def __getitem__(self, index: int) -> Sample: ...
    @overload
    def __getitem__(self, index: slice) -> Samples: ...
    def __getitem__(self, index: int | slice) -> Sample | Samples:
        if isinstance(index, slice):
            return self.at(range(*index.indices(len(self))))
        name = self.image_ids[index]
        mask, value_range = self._masks.get(name), self._value_ranges.get(name)
        return Sample(name, self._images[name], self.labels[index], mask, value_range)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, (Samples, tuple)) and tuple(self) == tuple(other)

    def __hash__(self) -> int:
        return hash(self.image_ids)

    def at(self, places: Iterable[int]) -> Samples:
        """Return the samples at some places."""
        places = list(places)
        image_ids = [self.image_ids[place] for place in places]
        labels = [self.labels[place] for place in places]
        return Samples(image_ids, labels, self._images, self._masks, self._value_ranges)


@dataclass(frozen=True)
class TaggedImages(Sequence[Sample]):
    """A data set: classes and samples, in a fixed order.

    Attributes:
        classes: names of the K classes, without the background.
        samples: images, each with an image id of its own.
        name: name for messages and manifests, for example "clothing/train".

    Raises:
        PPLValueError: if there are more than 254 classes, a class is named like the background, two images have the
            same id, an id leads out of the folder, or labels are not rising class indices.

    Example:
        >>> tags = {"a": (1,), "b": (0, 1), "c": ()}
        >>> samples = tuple(Sample(image_id, Path(f"{image_id}.jpg"), labels) for image_id, labels in tags.items())
        >>> pets = TaggedImages(("cat", "dog"), samples, "pets")
        >>> pets.targets().tolist()
        [[0.0, 1.0], [1.0, 1.0], [0.0, 0.0]]
        >>> pets.without(["b"]).image_ids
        ('a', 'c')
    """

    classes: tuple[str, ...]
    samples: Sequence[Sample]
    name: str = "images"

    def __post_init__(self) -> None:
        self._check_classes()
        self._check_image_ids()
        if not isinstance(self.samples, Samples):
            object.__setattr__(self, "samples", Samples.of(self.samples))
        checked = set()
        for image_id, labels in zip(self._samples.image_ids, self._samples.labels, strict=True):
            if labels not in checked:
                self._check_labels(image_id, labels)
                checked.add(labels)

    @property
    def _samples(self) -> Samples:
        assert isinstance(self.samples, Samples)
        return self.samples

    def _check_classes(self) -> None:
        if not 1 <= len(self.classes) <= MAX_CLASSES:
            fix = "merge some classes, or split the data set" if self.classes else "name at least one class"
            what = f"{self.name} has {len(self.classes)} classes"
            raise PPLValueError(f"{what}, but 8-bit masks have room for 1 to {MAX_CLASSES}; {fix}")
        if len(set(self.classes)) < len(self.classes):
            twice = next(name for name in self.classes if self.classes.count(name) > 1)
            raise PPLValueError(f"{self.name} has two classes named {twice!r}; rename or merge them")
        for name in self.classes:
            if name.strip().lower() in BACKGROUND_NAMES:
                fix = "the background is always there, as value 0 of the masks; leave it out of the classes and tags"
                raise PPLValueError(f"{self.name} has a class {name!r}, but {fix}")
            if name.strip().lower() in IGNORE_NAMES:
                fix = "pixels to ignore are no class but value 255 of the masks; leave it out of the classes and tags"
                raise PPLValueError(f"{self.name} has a class {name!r}, but {fix}")

    def _check_image_ids(self) -> None:
        """Results are written under the image ids, which must therefore be unique and stay inside their folder."""
        samples = self.samples
        image_ids = samples.image_ids if isinstance(samples, Samples) else [sample.image_id for sample in samples]
        seen = set()
        for place, image_id in enumerate(map(normalize_name, image_ids)):
            if os.path.isabs(image_id) or ".." in image_id.split("/"):
                what = f"image {image_ids[place]!r} leads out of the folder of the images"
                raise PPLValueError(f"{self.name}: {what}; name it by its path below that folder")
            if image_id in seen:
                first = next(sample.image for sample in samples if normalize_name(sample.image_id) == image_id)
                if samples[place].image == first:
                    raise PPLValueError(f"{self.name} lists {first} twice; take one of the two out")
                what = f"{first} and {samples[place].image} are both named {image_id!r} without their extension"
                raise PPLValueError(f"{self.name}: {what}; rename or remove one of them")
            seen.add(image_id)

    def _check_labels(self, image_id: str, labels: tuple[int, ...]) -> None:
        last = len(self.classes) - 1
        what = f"{self.name}: image {image_id!r} has labels {labels}"
        if labels and not 0 <= min(labels) <= max(labels) <= last:
            raise PPLValueError(f"{what}, outside 0..{last}")
        if any(second <= first for first, second in pairwise(labels)):
            fix = "give the class indices in rising order, each once"
            if len(labels) == len(self.classes) and set(labels) <= {0, 1}:
                fix = f"instead of a row of zeros and ones give the indices: {tuple(np.flatnonzero(labels).tolist())}"
            raise PPLValueError(f"{what}, which are not rising; {fix}")

    def __len__(self) -> int:
        return len(self.samples)

    @overload
    def __getitem__(self, index: int) -> Sample: ...
    @overload
    def __getitem__(self, index: slice) -> TaggedImages: ...
    def __getitem__(self, index: int | slice) -> Sample | TaggedImages:
        if isinstance(index, slice):
            return replace(self, samples=self.samples[index])
        return self.samples[index]

    @property
    def image_ids(self) -> tuple[str, ...]:
        """Image ids of the samples, in order."""
        return self._samples.image_ids

    def targets(self) -> Tensor:
        """Return the tags as (N, K) float32 of zeros and ones."""
        targets = torch.zeros(len(self.samples), len(self.classes))
        for row, labels in enumerate(self._samples.labels):
            targets[row, list(labels)] = 1.0
        return targets

    def part(self, share: Share) -> TaggedImages:
        """Return the samples of one share of the work, in order."""
        if share.count == 1:
            return self
        return self._at(place for place, image_id in enumerate(self.image_ids) if share.owns(image_id))

    def subset(self, image_ids: Iterable[str]) -> TaggedImages:
        """Return the samples with the given ids, in the given order.

        Raises:
            PPLValueError: if an id is unknown (the message offers the nearest ones) or is given twice.
        """
        places = {normalize_name(image_id): place for place, image_id in enumerate(self.image_ids)}
        chosen = []
        for image_id in map(normalize_name, image_ids):
            if image_id not in places:
                raise PPLValueError(f"{self.name} has no image {image_id!r}{nearest(image_id, places)}")
            chosen.append(places[image_id])
        return self._at(chosen)

    def without(self, image_ids: Iterable[str]) -> TaggedImages:
        """Return the samples whose ids are not given; unknown ids are no error."""
        left_out = set(map(normalize_name, image_ids))
        kept = enumerate(self.image_ids)
        return self._at(place for place, image_id in kept if normalize_name(image_id) not in left_out)

    def _at(self, places: Iterable[int]) -> TaggedImages:
        return replace(self, samples=self._samples.at(places))


def warn_about_tags(dataset: TaggedImages) -> TaggedImages:
    """Warn about classes that the tags of no image or of every image name, and return the data set."""
    counts = dataset.targets().sum(0).tolist()
    absent = [name for name, count in zip(dataset.classes, counts, strict=True) if count == 0]
    constant = [name for name, count in zip(dataset.classes, counts, strict=True) if count == len(dataset)]
    if absent:
        warnings.warn(
            f"{dataset.name}: no image is tagged {', '.join(map(repr, absent))}; nothing can be learnt or scored there",
            stacklevel=4,
        )
    if constant and len(dataset) > 1:
        warnings.warn(
            f"{dataset.name}: every image is tagged {', '.join(map(repr, constant))}: a classifier cannot learn "
            "from such tags where the class is, and its average precision is always 100; add images without the class",
            stacklevel=4,
        )
    return dataset


def warn_unmasked(dataset: TaggedImages, reason: str, unmasked: Sequence[Sample]) -> None:
    """Warn about images that have no mask although others of the data set have one."""
    if unmasked:
        names = examples(sample.image_id for sample in unmasked)
        warnings.warn(
            f"{dataset.name}: {len(unmasked)} of {len(dataset)} images have no mask, because {reason}: {names}",
            stacklevel=4,
        )
