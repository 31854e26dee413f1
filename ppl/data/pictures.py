"""Any folder of pictures, with or without a CSV of tags: no data set needed around it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from ppl.data.dataset import Sample, TaggedImages
from ppl.data.folder import read_labels
from ppl.errors import PPLFileNotFoundError, PPLValueError, nearest
from ppl.io import list_images

__all__ = ["read_images"]


def read_images(
    folder: str | os.PathLike[str], classes: Sequence[str], labels: str | os.PathLike[str] | None = None
) -> TaggedImages:
    """Read a folder of pictures.

    Args:
        folder: the pictures, also in sub-folders.
        classes: names that the tags may have.
        labels: CSV with a header image,labels; without it no image has a tag. Rows decide which pictures are read.

    Returns:
        The pictures, named after their folder; those of the CSV in its order, else in the order of their names.

    Raises:
        PPLFileNotFoundError: if the folder, the CSV or one of its pictures is missing.
        PPLValueError: if there are no pictures, or a tag is none of `classes`.
    """
    folder = Path(folder)
    images = list_images(folder)
    if not images:
        raise PPLValueError(f"{folder} holds no pictures; check the path")
    if labels is None:
        samples = tuple(Sample(image_id, path, ()) for image_id, path in images.items())
        return TaggedImages(tuple(classes), samples, folder.name)
    tags = read_labels(Path(labels), tuple(classes))
    for image_id in tags:
        if image_id not in images:
            raise PPLFileNotFoundError(f"{labels}: {folder} has no picture {image_id!r}{nearest(image_id, images)}")
    samples = tuple(Sample(image_id, images[image_id], row) for image_id, row in tags.items())
    return TaggedImages(tuple(classes), samples, folder.name)
