"""Write masks in the formats of annotation tools: COCO's JSON and YOLO's text files."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ppl.data.dataset import TaggedImages
from ppl.data.instances import encode_runs
from ppl.errors import PPLValueError
from ppl.io import BadImageError, atomic_write, read_mask
from ppl.io.listing import counted, examples

__all__ = ["write_coco", "write_yolo"]

Mask = npt.NDArray[np.bool_]


def write_coco(path: str | os.PathLike[str], dataset: TaggedImages, masks: str | os.PathLike[str] | None = None) -> int:
    """Write masks as COCO instances with run-length codes, which pycocotools and annotation tools read.

    Every connected region of a class is one instance. Category ids are the mask values, 1..K.

    Args:
        path: JSON file to write, for example `annotations/instances_train.json`.
        dataset: images and classes.
        masks: folder of `<image id>.png`, for example of a run's refined masks; None takes the masks of the data set.
            Images without a mask are left out.

    Returns:
        The number of images in the file.

    Raises:
        PPLValueError: if no image has a mask, or a mask holds an index without a class.
        FileWriteError: if the file cannot be written.

    Warns:
        UserWarning: if masks cannot be read (counted and named); they are left out.
    """
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for image_id, name, mask in _masks(dataset, masks):
        images.append({"id": len(images) + 1, "file_name": name, "height": mask.shape[0], "width": mask.shape[1]})
        for value, region in _regions(mask, image_id, len(dataset.classes)):
            rows, columns = np.flatnonzero(region.any(1)), np.flatnonzero(region.any(0))
            box = [columns[0], rows[0], columns[-1] - columns[0] + 1, rows[-1] - rows[0] + 1]
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": len(images),
                    "category_id": value,
                    "segmentation": encode_runs(region),
                    "area": int(region.sum()),
                    "bbox": [int(number) for number in box],
                    "iscrowd": 0,
                }
            )
    categories = [{"id": index, "name": name} for index, name in enumerate(dataset.classes, start=1)]
    with atomic_write(path, "w") as file:
        json.dump({"images": images, "annotations": annotations, "categories": categories}, file)
    return len(images)


def write_yolo(
    folder: str | os.PathLike[str], dataset: TaggedImages, masks: str | os.PathLike[str] | None = None
) -> int:
    """Write masks as YOLO segmentation labels: `<image id>.txt`, one polygon per connected region.

    Polygons have no holes, and a region that encloses another one covers it. Regions below three pixels are left out.

    Args:
        folder: folder for the text files; `classes.txt` is written there too.
        dataset: images and classes.
        masks: folder of `<image id>.png`; None takes the masks of the data set. Images without a mask are left out.

    Returns:
        The number of text files, without `classes.txt`.

    Raises:
        PPLValueError: if no image has a mask, or a mask holds an index without a class.
        FileWriteError: if a file cannot be written.

    Warns:
        UserWarning: if masks cannot be read (counted and named); they are left out.
    """
    count = 0
    for image_id, _, mask in _masks(dataset, masks):
        lines = []
        for value, region in _regions(mask, image_id, len(dataset.classes)):
            corners = _outline(region)
            if corners is not None:
                numbers = (corners / (mask.shape[1], mask.shape[0])).clip(0, 1).ravel()
                lines.append(" ".join([str(value - 1), *(f"{number:.6f}" for number in numbers)]) + "\n")
        with atomic_write(Path(folder) / f"{image_id}.txt", "w") as file:
            file.writelines(lines)
        count += 1
    with atomic_write(Path(folder) / "classes.txt", "w") as file:
        file.writelines(f"{name}\n" for name in dataset.classes)
    return count


def _masks(
    dataset: TaggedImages, folder: str | os.PathLike[str] | None
) -> Iterator[tuple[str, str, npt.NDArray[np.uint8]]]:
    """Yield image id, file name and mask of every image that has a mask."""
    found, bad = False, []
    for sample in dataset:
        path = None if folder is None else Path(folder) / f"{sample.image_id}.png"
        try:
            if path is None and sample.mask is not None:
                mask = sample.read_mask()
            elif path is not None and path.is_file():
                mask = read_mask(path)
            else:
                continue
        except BadImageError as error:
            bad.append(str(error))
            continue
        found = True
        yield sample.image_id, sample.image_id + sample.image.suffix, mask
    if bad:
        warnings.warn(f"{counted(len(bad), 'mask')} left out: {examples(bad)}", stacklevel=3)
    if not found:
        raise PPLValueError(f"no image of {dataset.name} has a mask{f' in {folder}' if folder else ''}; check the path")


def _regions(mask: npt.NDArray[np.uint8], image_id: str, num_classes: int) -> Iterator[tuple[int, Mask]]:
    """Yield class value and pixels of every connected region of a class (4 neighbours)."""
    from skimage.measure import label

    values = [int(value) for value in np.unique(mask) if value not in (0, 255)]
    if values and values[-1] > num_classes:
        raise PPLValueError(f"the mask of {image_id!r} holds index {values[-1]}, but there are {num_classes} classes")
    for value in values:
        numbered = label(mask == value, connectivity=1)
        for number in range(1, int(numbered.max()) + 1):
            yield value, numbered == number


def _outline(region: Mask) -> npt.NDArray[np.float64] | None:
    """Return the corners (x, y) of a region's outer border in pixels; None if the region is too small for one."""
    from skimage.measure import approximate_polygon, find_contours

    if region.sum() < 3:
        return None
    borders = find_contours(np.pad(region, 1).astype(np.float64), 0.5)
    border = max(borders, key=lambda points: float(np.ptp(points, axis=0).prod()))
    corners = approximate_polygon(border, 0.5)[:-1]  # the last point is the first
    # padded pixel centres to corners of the picture: one pixel of padding, half a pixel to the centre
    return None if len(corners) < 3 else corners[:, ::-1] - 0.5
