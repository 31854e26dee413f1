"""Torch data sets of pairs (image, target) as training reads its images."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader

from ppl.data.dataset import TaggedImages
from ppl.errors import PPLTypeError, PPLValueError, nearest
from ppl.io import read_image, to_rgb

__all__ = ["PairImages", "TrainingImages", "training_images"]


_LIMIT = 20.0
"""Value that a normalised picture does not reach, noise included."""


@dataclass(frozen=True)
class Pair:
    """One image with its class indices.

    Attributes:
        image: a PIL image in RGB, or a tensor (C,H,W), which is used as it is.
        labels: class indices 0..K-1 in rising order.
    """

    image: Image.Image | Tensor
    labels: tuple[int, ...]

    def read_image(self, *, at_least: int | tuple[int, int] | None = None) -> Image.Image | Tensor:
        """Return the image."""
        return self.image


class PairImages:
    """A data set of pairs (image, target).

    Args:
        dataset: anything with a length and items (image, target). An image is a PIL image, a uint8 array (H,W,3) or a
            path, which are augmented and normalised like files; or a tensor (C,H,W) that the data set has normalised,
            all of one size. A target is a class index, a list of class indices or names, the names as "cat;cow", or a
            row of K zeros and ones in floating point.
        classes: the class names.

    Raises:
        PPLTypeError: if the data set has no length or no items.

    Example:
        >>> pairs = PairImages([(torch.zeros(3, 4, 4), 1), (torch.ones(3, 4, 4), [0, 1])], ["cat", "dog", "owl"])
        >>> len(pairs), pairs[1].labels
        (2, (0, 1))
    """

    def __init__(self, dataset: Any, classes: Sequence[str]) -> None:
        self.dataset, self.classes, self.name = dataset, tuple(classes), f"the {type(dataset).__name__}"
        if isinstance(dataset, DataLoader):
            raise PPLTypeError("images are read one by one, and a DataLoader gives batches: pass loader.dataset")
        if isinstance(dataset, (str, bytes)) or not (hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")):
            raise PPLTypeError(
                "images must be a data set of ppl.data.open_dataset, or one with a length and pairs (image, target), "
                f"got {dataset!r:.80}"
            )
        self._shape: torch.Size | None = None

    def __len__(self) -> int:
        return len(self.dataset)

    def __iter__(self) -> Iterator[Pair]:
        return (self[index] for index in range(len(self)))

    def __getitem__(self, index: int) -> Pair:
        """Return an image and its labels.

        Raises:
            PPLTypeError: if the item is no pair of an image and a target.
            PPLValueError: if a class is unknown, or tensors differ in size.
        """
        item = self.dataset[index]
        if not isinstance(item, (tuple, list)) or len(item) < 2:
            raise PPLTypeError(f"item {index} of {self.name} is no pair (image, target) but {item!r:.80}")
        return Pair(self._image(item[0], index), self._labels(item[1], index))

    def _image(self, image: Any, index: int) -> Image.Image | Tensor:
        if isinstance(image, (str, os.PathLike)):
            image = read_image(image)
        bands = image.shape[2:] if isinstance(image, np.ndarray) else None
        if bands is not None and image.dtype == np.uint8 and (image.ndim == 2 or bands in ((1,), (3,), (4,))):
            image = Image.fromarray(np.ascontiguousarray(image[:, :, 0] if bands == (1,) else image))
        if isinstance(image, Image.Image):
            return to_rgb(image)
        if not (isinstance(image, Tensor) and image.is_floating_point() and image.ndim == 3):
            what = f"{type(image).__name__} {tuple(getattr(image, 'shape', ()))} {getattr(image, 'dtype', '')}"
            raise PPLTypeError(
                f"image {index} of {self.name} is a {what.strip()}: give a PIL image, a uint8 array (H,W,3), or a "
                "normalised tensor (C,H,W)"
            )
        self._check_values(image, index)
        self._shape = self._shape or image.shape
        if image.shape != self._shape:
            raise PPLValueError(
                f"image {index} of {self.name} is {tuple(image.shape)}, and another one is {tuple(self._shape)}: crop "
                "all tensors to one size, or give PIL images"
            )
        return image

    def _check_values(self, image: Tensor, index: int) -> None:
        """Refuse NaN, and warn of values that no normalised picture has."""
        low, high = torch.stack(torch.aminmax(image.detach())).tolist() if image.numel() else (0.0, 0.0)
        if not (low > -math.inf and high < math.inf):  # NaN fails the comparison too
            raise PPLValueError(f"image {index} of {self.name} holds NaN or infinity: mend it or take it out")
        if max(-low, high) > _LIMIT:  # the text is the same for all images
            warnings.warn(
                f"tensors of {self.name} hold values above {_LIMIT:g}: are these pixels of 0..255? Divide by 255 and "
                "normalise, or give PIL images or arrays of uint8",
                stacklevel=2,
            )

    def _labels(self, target: Any, index: int) -> tuple[int, ...]:
        count, place = len(self.classes), f"target {index} of {self.name}"
        values = target.tolist() if isinstance(target, (Tensor, np.ndarray, np.generic)) else target
        if isinstance(values, str) and values not in self.classes:
            values = [name.strip() for name in values.split(";") if name.strip()]
        row = [values] if isinstance(values, (int, str)) and not isinstance(values, bool) else values
        if not isinstance(row, (list, tuple)) or not all(isinstance(value, (int, float, str)) for value in row):
            raise PPLTypeError(
                f"{place} is {target!r:.80}: give a class index, a list of them, or a row of 0.0 and 1.0"
            )
        if any(isinstance(value, (float, bool)) for value in row):
            if len(row) != count or not set(row) <= {0, 1}:
                raise PPLValueError(f"{place} is {row!r:.80}: a row has {count} zeros and ones, one for each class")
            return tuple(number for number, value in enumerate(row) if value)
        if len(row) == count > 1 and set(row) <= {0, 1}:
            raise PPLValueError(
                f"{place} is {row}: class indices, or a 0 or 1 for each class? Give rows in floating point, and a list "
                "of class indices without repetition"
            )
        return tuple(sorted({self._index(value, place) for value in row}))

    def _index(self, value: Any, place: str) -> int:
        if isinstance(value, str):
            if value not in self.classes:
                raise PPLValueError(f"{place}: no class {value!r}{nearest(value, self.classes)}")
            return self.classes.index(value)
        if not 0 <= value < len(self.classes):
            raise PPLValueError(f"{place}: class {value} is outside 0..{len(self.classes) - 1}")
        return int(value)


TrainingImages: TypeAlias = TaggedImages | PairImages
"""Images that a classifier can be trained on."""


def training_images(images: Any, num_classes: int, classes: Sequence[str] | None) -> TrainingImages:
    """Return images as training reads them.

    Args:
        images: a data set of this library, or one for `PairImages`.
        num_classes: the number of classes of the model.
        classes: the model's class names; by default those of the data set (`dataset.classes`, as torchvision has them),
            else "class 0", "class 1", ...

    Raises:
        PPLTypeError: if `images` is neither.
    """
    if isinstance(images, (TaggedImages, PairImages)):
        return images
    own = getattr(images, "classes", None)
    named = own if isinstance(own, (list, tuple)) and all(isinstance(name, str) for name in own) else None
    return PairImages(images, named or classes or [f"class {index}" for index in range(num_classes)])
