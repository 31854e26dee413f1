"""The images of a folder run: the place of each image and of its CAMs."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from ppl.cam.result import CamResult
from ppl.errors import PPLFileNotFoundError, PPLValueError
from ppl.io import ImageFile, list_images, read_image
from ppl.io.archives import ArchivedFile, FilePath
from ppl.io.fingerprint import sha256
from ppl.io.listing import normalize_name
from ppl.refine.probabilities import Background, cams_to_probs

__all__ = ["Cams", "RefineJob", "jobs_from_folders", "read_probs", "resize_maps"]

Cams: TypeAlias = tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]
"""Maps `(k, h, w)` and the class of each, from 0: `(k,)`."""


@dataclass(frozen=True)
class RefineJob:
    """One image to refine.

    Args:
        image_id: name of the result, without extension.
        image: the image file.
        cams: a CAM file, as `CamResult.load` reads them, or a function that returns maps and classes.

    Example:
        >>> RefineJob("cat", Path("images/cat.jpg"), Path("cams/cat.npz")).load()
        Traceback (most recent call last):
        ppl.errors.PPLFileNotFoundError: no CAM file at cams/cat.npz
    """

    image_id: str
    image: os.PathLike[str]
    cams: Path | Callable[[], Cams]

    @property
    def files(self) -> list[FilePath]:
        """The files that the result is made from."""
        image = self.image.path if isinstance(self.image, ImageFile) else self.image
        image = image if isinstance(image, ArchivedFile) else Path(image)
        return [image, *([self.cams] if isinstance(self.cams, Path) else [])]

    def load(self) -> Cams:
        """Read the maps and classes.

        Raises:
            PPLFileNotFoundError: if the file is missing.
            PPLValueError: if the file is broken, the shapes do not match, or a class has no place in a mask.
        """
        if callable(self.cams):
            maps, classes = self.cams()
            return _checked(np.asarray(maps, np.float32), np.asarray(classes, np.int64), self.image_id)
        result = CamResult.load(self.cams)
        return _checked(result.maps.numpy(), result.classes.numpy(), os.fspath(self.cams))

    def key(self) -> list[Any]:
        """Return the SHA-256 of each file and the image's value range, for records of finished work.

        Maps that a function returns have no file and do not count.
        """
        value_range = getattr(self.image, "value_range", None)  # of an `ImageFile`
        return [value_range, *(sha256(path) if path.is_file() else "missing" for path in self.files)]


def _checked(maps: npt.NDArray[np.float32], classes: npt.NDArray[np.int64], name: str) -> Cams:
    if maps.ndim != 3 or classes.shape != maps.shape[:1]:
        raise PPLValueError(f"{name}: maps must be (k, h, w) and classes (k,), got {maps.shape} and {classes.shape}")
    if classes.size and not 0 <= classes.min() <= classes.max() < 254:
        what = f"got {classes.min()} to {classes.max()}"
        raise PPLValueError(f"{name}: classes must be 0 to 253 for masks of 8 bits, {what}")
    return maps, classes


def resize_maps(maps: npt.NDArray[np.float32], size: tuple[int, int]) -> npt.NDArray[np.float32]:
    """Resize CAMs of any resolution to the size of their image, bilinearly.

    Args:
        maps: `(k, h, w)`.
        size: height and width.

    Returns:
        `(k, *size)`; `maps` itself if its size is right.

    Raises:
        PPLValueError: if the maps have no cells.

    Example:
        >>> resize_maps(np.ones((2, 3, 4), np.float32), (6, 8)).shape
        (2, 6, 8)
    """
    if maps.shape[1:] == size:
        return maps
    if not len(maps):
        return np.zeros((0, *size), np.float32)
    if 0 in maps.shape:
        raise PPLValueError(f"CAMs of shape {maps.shape} have no cells: generate them again")
    resized: npt.NDArray[np.float32] = F.interpolate(
        torch.from_numpy(maps)[None], size, mode="bilinear", align_corners=False
    )[0].numpy()
    return resized


def read_probs(
    job: RefineJob, background: Background
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[Any], npt.NDArray[np.int64]]:
    """Read the image and the CAMs of a job, and make probabilities of the CAMs.

    Returns:
        The image (H, W, 3), the probabilities (1 + k, H, W), and the label of each channel in a mask (1 + k,).
    """
    image: npt.NDArray[np.uint8] = np.asarray(read_image(job.image))
    maps, classes = job.load()
    probs = cams_to_probs(resize_maps(maps, (image.shape[0], image.shape[1])), background)
    labels: npt.NDArray[np.int64] = np.append(0, classes + 1)
    return image, probs, labels


def jobs_from_folders(
    images: str | os.PathLike[str], cams: str | os.PathLike[str], image_ids: Iterable[str] | None = None
) -> list[RefineJob]:
    """Pair the images of one folder with the CAM files of another by their names without extension.

    Args:
        images: folder of images, also in sub-folders ("/" in the image id) or tar archives.
        cams: folder of `.npz` files, also in sub-folders.
        image_ids: the images; None: those that have a CAM file. An image without image file or CAM file stays in the
            list, so that `refine_folder` reports it.

    Returns:
        The jobs, in the order of `image_ids`, else of the names.

    Raises:
        PPLFileNotFoundError: if a folder is missing, or there is no CAM file.
        PPLValueError: if two image files have the same image id.
    """
    images, cams = Path(images), Path(cams)
    if not cams.is_dir():
        raise PPLFileNotFoundError(f"no folder at {cams}")
    image_files = list_images(images)
    found = {normalize_name(path.relative_to(cams).with_suffix("").as_posix()): path for path in cams.rglob("*.npz")}
    chosen = sorted(found) if image_ids is None else [normalize_name(image_id) for image_id in image_ids]
    if image_ids is None and not chosen:
        raise PPLFileNotFoundError(f"{cams} holds no CAM files (.npz); make them with `ppl cam`, or give their folder")
    return [
        RefineJob(
            image_id,
            image_files.get(image_id, images / f"{image_id}.jpg"),
            found.get(image_id, cams / f"{image_id}.npz"),
        )
        for image_id in chosen
    ]
