"""Images with their tags: what every reader returns and everything else takes."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol, overload, runtime_checkable

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from ppl.errors import PPLFileNotFoundError, PPLValueError, nearest
from ppl.io import read_image, read_mask
from ppl.io.listing import normalize_name

__all__ = ["MaskSource", "NoSplitError", "Sample", "TaggedImages", "warn_absent_classes"]


class NoSplitError(PPLFileNotFoundError):
    """A data set has no split of this name; whatever else is missing of it is another error."""


@runtime_checkable
class MaskSource(Protocol):
    """A mask that is not a file of its own but is drawn when asked for."""

    def read(self) -> npt.NDArray[np.uint8]:
        """(H, W) uint8 class indices, 0 background, 255 ignore."""


@dataclass(frozen=True)
class Sample:
    """One image and what is known about it.

    Attributes:
        image_id: its name without extension, unique in its data set; "/" where images lie in sub-folders.
        image: the file.
        labels: class indices 0..K-1, rising; empty when none of the classes is in the image.
        mask: file or source of the mask, None where there is none. Class *c* is *c*+1 in it, 0 is background.
    """

    image_id: str
    image: Path
    labels: tuple[int, ...]
    mask: Path | MaskSource | None = None

    def read_image(self) -> Image.Image:
        """The picture as upright RGB; see `ppl.io.read_image`."""
        return read_image(self.image)

    def read_mask(self) -> npt.NDArray[np.uint8]:
        """The mask as (H, W) uint8 class indices, 0 background, 255 ignore.

        Raises:
            PPLValueError: if the image has no mask.
        """
        if self.mask is None:
            raise PPLValueError(f"image {self.image_id!r} has no mask; use a split with masks")
        return self.mask.read() if isinstance(self.mask, MaskSource) else read_mask(self.mask)


@dataclass(frozen=True)
class TaggedImages(Sequence[Sample]):
    """A data set: classes and samples, in a fixed order.

    Attributes:
        classes: names of the K classes, background not among them.
        samples: the images, no two with the same image id.
        name: for messages and manifests, e.g. "clothing/train".

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
    samples: tuple[Sample, ...]
    name: str = "images"

    def __post_init__(self) -> None:
        if not 1 <= len(self.classes) <= 254:
            raise PPLValueError(f"{self.name} has {len(self.classes)} classes; masks leave room for 1 to 254")
        background = next((name for name in self.classes if name.strip().lower() == "background"), None)
        if background is not None:
            fix = "the background is always there, as value 0 of the masks; leave it out of the classes and tags"
            raise PPLValueError(f"{self.name} has a class {background!r}, but {fix}")
        self._check_image_ids()
        for sample in self.samples:
            if sample.labels and not 0 <= min(sample.labels) <= max(sample.labels) < len(self.classes):
                what = f"image {sample.image_id!r} has labels {sample.labels}"
                raise PPLValueError(f"{self.name}: {what}, outside 0..{len(self.classes) - 1}")

    def _check_image_ids(self) -> None:
        """Results are written under the image ids: one for each image, and inside of the folder that they go to."""
        seen: dict[str, Sample] = {}
        for sample in self.samples:
            image_id = normalize_name(sample.image_id)
            if os.path.isabs(image_id) or ".." in image_id.split("/"):
                what = f"image {sample.image_id!r} leads out of the folder of the images"
                raise PPLValueError(f"{self.name}: {what}; name it by its path below that folder")
            if image_id in seen:
                what = f"{seen[image_id].image} and {sample.image} are both named {image_id!r} without their extension"
                raise PPLValueError(f"{self.name}: {what}; rename or remove one of them")
            seen[image_id] = sample

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
        """The samples' names, in order."""
        return tuple(sample.image_id for sample in self.samples)

    def targets(self) -> Tensor:
        """The tags as (N, K) float32 of zeros and ones."""
        targets = torch.zeros(len(self.samples), len(self.classes))
        for row, sample in enumerate(self.samples):
            targets[row, list(sample.labels)] = 1.0
        return targets

    def subset(self, image_ids: Iterable[str]) -> TaggedImages:
        """The samples of these names, in the order given.

        Raises:
            PPLValueError: if a name is unknown, and the message holds the nearest ones; or comes twice.
        """
        by_id = {normalize_name(sample.image_id): sample for sample in self.samples}
        chosen = []
        for image_id in map(normalize_name, image_ids):
            if image_id not in by_id:
                raise PPLValueError(f"{self.name} has no image {image_id!r}{nearest(image_id, by_id)}")
            chosen.append(by_id[image_id])
        return replace(self, samples=tuple(chosen))

    def without(self, image_ids: Iterable[str]) -> TaggedImages:
        """All samples but those of these names; names that are not there are no error."""
        left_out = set(map(normalize_name, image_ids))
        return replace(
            self, samples=tuple(sample for sample in self.samples if normalize_name(sample.image_id) not in left_out)
        )


def warn_absent_classes(dataset: TaggedImages) -> TaggedImages:
    """Warn about classes that no image of the data set carries; returns the data set."""
    present = {label for sample in dataset.samples for label in sample.labels}
    absent = [name for index, name in enumerate(dataset.classes) if index not in present]
    if absent:
        warnings.warn(
            f"{dataset.name}: no image is tagged {', '.join(map(repr, absent))}; nothing can be learnt or scored there",
            stacklevel=3,
        )
    return dataset
