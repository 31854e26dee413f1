"""Scores of a folder of mask files."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ppl.data import TaggedImages
from ppl.data.text_files import read_classes
from ppl.errors import PPLFileNotFoundError, PPLValueError
from ppl.io import read_mask
from ppl.io.listing import list_files, normalize_name
from ppl.metrics import ConfusionMatrix, Scores

__all__ = ["score_masks"]


def score_masks(predictions: str | Path, images: TaggedImages, notes: list[str] | None = None) -> Scores:
    """Score a folder of palette PNGs against the masks of a data set.

    Args:
        predictions: folder with `<image id>.png`; a missing file counts as all background. A `classes.txt` there must
            name the classes of the data set.
        images: the data set; images without a mask are left out.
        notes: gets lines with the number of images that have no mask, and of those that have no file.

    Returns:
        Scores over all pixels of the data set; see `ppl.metrics.ConfusionMatrix`.

    Raises:
        PPLFileNotFoundError: if there is no such folder, or the folder has a file of none of the images.
        PPLValueError: if no image has a mask, a file is no mask of its image, the predictions are of other classes, or
            the only values of either side are 0 and 255.
    """
    scored = [sample for sample in images if sample.mask is not None]
    if not scored:
        raise PPLValueError(f"{images.name} has no masks to score against; give a data set or a split that has some")
    if len(scored) < len(images) and notes is not None:
        notes.append(f"scored {len(scored)} of {len(images)} images; the others have no mask")
    _check_classes(Path(predictions) / "classes.txt", images)
    there = list_files(Path(predictions)) if Path(predictions).is_dir() else {}
    paths = {sample.image_id: there.get(normalize_name(f"{sample.image_id}.png")) for sample in scored}
    missing = [image_id for image_id, path in paths.items() if path is None]
    if len(missing) == len(scored):
        raise PPLFileNotFoundError(
            f"{predictions} holds no {missing[0]}.png nor any other of the {len(scored)} images that have a mask; give "
            "the folder that the PNGs are in"
        )
    if missing and notes is not None:
        notes.append(
            f"{len(missing)} of {len(scored)} images have no file and count as background, as {missing[0]}.png"
        )
    confusion = ConfusionMatrix(len(images.classes) + 1)
    values: dict[str, set[int]] = {"masks": set(), "predictions": set()}
    for sample in scored:
        target, path = sample.read_mask(), paths[sample.image_id]
        try:
            mask = np.zeros_like(target) if path is None else read_mask(path)
            confusion.update(target, mask)
        except PPLValueError as error:
            raise PPLValueError(f"{path}: {error}") from None
        values["masks"].update(np.unique(target).tolist())
        values["predictions"].update(np.unique(mask).tolist())
    for side, found in values.items():
        if 255 in found and found <= {0, 255}:
            raise PPLValueError(
                f"{images.name}: the only values of the {side} are 0 and 255: object or ignore? 255 is not scored; "
                'write 1 for an object, or set white to "object" for the true masks of a single class'
            )
    if notes is not None:
        notes += _shifted(confusion, images)
    return confusion.compute()


def _check_classes(path: Path, images: TaggedImages) -> None:
    """Refuse predictions that were made for classes of other names or in another order."""
    classes = read_classes(path) if path.is_file() else images.classes
    if tuple(map(normalize_name, classes)) != tuple(map(normalize_name, images.classes)):
        raise PPLValueError(
            f"{path} names the classes {', '.join(classes)}, and {images.name} has {', '.join(images.classes)}: score "
            "against a data set of the same classes, in the same order"
        )


def _shifted(confusion: ConfusionMatrix, images: TaggedImages) -> list[str]:
    """Return a note if most objects are predicted, but by the value beside their own.

    Class 1 as value 0 does not count, since missed objects are predicted so.
    """
    counts = confusion.counts.numpy()
    objects, same = counts[2:].sum(), counts.diagonal()[2:].sum()
    for offset, what in ((-1, "small: they seem to count classes from 0"), (1, "large: they seem to begin at 2")):
        moved = np.diagonal(counts[:, : len(counts)], offset)[1 if offset < 0 else 2 :].sum()
        if 2 * moved > objects and moved > 2 * same:
            return [f"most values of the predictions are one too {what}; {images.classes[0]!r} has the value 1"]
    return []
