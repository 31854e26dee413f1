"""Images with their label maps."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from torch.utils.data import Dataset

from ppl.io import fingerprint, read_image, read_mask, sha256

__all__ = ["LabelledImages", "usual_side"]


class LabelledImages(Dataset[tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]]):
    """A dataset of image files and the files of their label maps.

    Args:
        files: path of the image and path of the palette PNG of each pair. Pairs without a label map are left out: the
            call that made the label maps has reported them.

    Example:
        >>> len(LabelledImages([("a.jpg", "labels/a.png")]))
        0
    """

    def __init__(self, files: Iterable[tuple[str | os.PathLike[str], str | os.PathLike[str]]]) -> None:
        self.pairs = [(image, Path(labels)) for image, labels in files if Path(labels).is_file()]

    def __len__(self) -> int:
        return len(self.pairs)

    def fingerprint(self) -> str:
        """Return a hash of the names of the images and the content of the label maps."""
        return fingerprint([[Path(image).name, sha256(labels)] for image, labels in self.pairs])

    def __getitem__(self, index: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
        image, labels = self.pairs[index]
        return np.array(read_image(image)), read_mask(labels)


def usual_side(pairs: Any) -> int:
    """Return the median of the longer sides of 25 images, as a multiple of 32 and at most 512.

    Larger views would be padding for half of the images.

    Args:
        pairs: map-style dataset of `(image, labels)`.

    Example:
        >>> usual_side([(None, np.zeros((200, 40)))])
        224
    """
    some = np.unique(np.linspace(0, len(pairs) - 1, 25).astype(int))
    usual = float(np.median([max(pairs[int(index)][1].shape) for index in some]))
    return min(32 * math.ceil(usual / 32), 512)
