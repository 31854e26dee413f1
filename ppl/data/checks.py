"""Look at every file once before the work begins, so that one bad image does not end it hours later."""

from __future__ import annotations

import os
import warnings

from joblib import Parallel, delayed

from ppl.data.dataset import Sample, TaggedImages
from ppl.errors import PPLError, PPLValueError
from ppl.io import BadImageError, image_size, read_image
from ppl.parallel import BadFile, tracked

__all__ = ["check_images"]


def check_images(
    dataset: TaggedImages, *, masks: bool = True, workers: int | None = None, progress: bool = True
) -> tuple[TaggedImages, list[BadFile]]:
    """Decode every image once and leave out those that cannot be used, with a warning for each.

    Args:
        dataset: the data set.
        masks: look at the masks as well: readable, of the image's size, class indices 0..K or 255.
        workers: threads; None is one per core.
        progress: show a bar, if the error stream is a terminal.

    Returns:
        The data set without the bad images, and the list of these.

    Raises:
        PPLValueError: if no image can be used.
    """
    found = Parallel(n_jobs=workers or os.cpu_count() or 1, prefer="threads", return_as="generator")(
        delayed(_fault)(sample, len(dataset.classes), masks) for sample in dataset
    )
    bar = tracked(found, "checking the images", len(dataset), show=progress)
    bad = [BadFile(sample.image_id, reason) for sample, reason in zip(dataset, bar, strict=True) if reason]
    if bad and len(bad) == len(dataset):
        raise PPLValueError(f"{dataset.name}: none of the {len(bad)} images can be used; the first: {bad[0].reason}")
    for file in bad:
        warnings.warn(f"{dataset.name}: {file.image_id!r} is left out: {file.reason}", stacklevel=2)
    return dataset.without(file.image_id for file in bad), bad


def _fault(sample: Sample, num_classes: int, masks: bool) -> str | None:
    try:
        read_image(sample.image, at_least=1)  # a JPEG at 1/8 of its size: every byte is still decoded
        if masks and sample.mask is not None:
            _check_mask(sample, num_classes)
    except PPLError as error:
        return str(error)
    return None


def _check_mask(sample: Sample, num_classes: int) -> None:
    mask, size = sample.read_mask(), image_size(sample.image)
    if mask.shape != size:
        raise BadImageError(
            f"the mask of {sample.image} is {mask.shape} but the image is {size} (height, width); redo it"
        )
    wrong = mask[(mask > num_classes) & (mask != 255)]
    if wrong.size:
        raise BadImageError(
            f"the mask of {sample.image} holds index {wrong.max()}, but there are {num_classes} classes"
        )
