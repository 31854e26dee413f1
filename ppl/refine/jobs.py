"""The images of a folder run: where each one's picture and CAMs are."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from ppl.errors import PPLFileNotFoundError, PPLValueError
from ppl.io import list_images
from ppl.io.listing import normalize_name

__all__ = ["Cams", "RefineJob", "jobs_from_folders", "load_cams", "resize_maps"]

Cams: TypeAlias = tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]
"""Maps `(k, h, w)` and the class of each, from 0: `(k,)`."""


@dataclass(frozen=True)
class RefineJob:
    """One image to refine.

    Args:
        image_id: name of the result, without extension.
        image: the picture.
        cams: `.npz` file with the arrays `maps` and `classes`, or a function that returns the two.

    Example:
        >>> RefineJob("cat", Path("images/cat.jpg"), Path("cams/cat.npz")).load()
        Traceback (most recent call last):
        ppl.errors.PPLFileNotFoundError: no CAMs at cams/cat.npz
    """

    image_id: str
    image: Path
    cams: Path | Callable[[], Cams]

    def load(self) -> Cams:
        """The maps and classes, checked.

        Raises:
            PPLFileNotFoundError: if the file is not there.
            PPLValueError: if it is broken, or maps and classes do not fit together.
        """
        if callable(self.cams):
            maps, classes = self.cams()
            return _checked(np.asarray(maps, np.float32), np.asarray(classes, np.int64), self.image_id)
        return load_cams(self.cams)


def load_cams(path: str | os.PathLike[str]) -> Cams:
    """Read the maps and classes of a CAM file; nothing is ever unpickled.

    Args:
        path: a `.npz` with `maps` (k,h,w) and `classes` (k,).

    Returns:
        Maps in float32 and classes.

    Raises:
        PPLFileNotFoundError: if it is not there.
        PPLValueError: if it is broken or holds something else.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            return _checked(file["maps"].astype(np.float32), file["classes"].astype(np.int64), os.fspath(path))
    except FileNotFoundError as error:
        raise PPLFileNotFoundError(f"no CAMs at {os.fspath(path)}") from error
    except PPLValueError:
        raise
    except Exception as error:  # numpy, zip and zlib call a broken file by many names
        raise PPLValueError(f"{os.fspath(path)} is not a whole CAM file ({error}): generate it again") from error


def _checked(maps: npt.NDArray[np.float32], classes: npt.NDArray[np.int64], name: str) -> Cams:
    if maps.ndim != 3 or classes.shape != maps.shape[:1]:
        raise PPLValueError(f"{name}: maps (k, h, w) and classes (k,) do not fit: {maps.shape} and {classes.shape}")
    if classes.size and not 0 <= classes.min() <= classes.max() < 254:
        raise PPLValueError(f"{name}: a mask has room for classes 0 to 253, got {classes.min()} to {classes.max()}")
    return maps, classes


def resize_maps(maps: npt.NDArray[np.float32], size: tuple[int, int]) -> npt.NDArray[np.float32]:
    """Bring CAMs of any resolution to the size of their image, bilinearly.

    Args:
        maps: `(k, h, w)`.
        size: height and width.

    Returns:
        `(k, *size)`; `maps` itself where it already is that size.

    Example:
        >>> resize_maps(np.ones((2, 3, 4), np.float32), (6, 8)).shape
        (2, 6, 8)
    """
    if maps.shape[1:] == size or not len(maps):
        return maps if maps.shape[1:] == size else np.zeros((0, *size), np.float32)
    if 0 in maps.shape:
        raise PPLValueError(f"CAMs of shape {maps.shape} have no cells: generate them again")
    resized: npt.NDArray[np.float32] = F.interpolate(
        torch.from_numpy(maps)[None], size, mode="bilinear", align_corners=False
    )[0].numpy()
    return resized


def jobs_from_folders(
    images: str | os.PathLike[str], cams: str | os.PathLike[str], image_ids: Iterable[str] | None = None
) -> list[RefineJob]:
    """Pair the pictures of one folder with the CAM files of another, by image id.

    Args:
        images: folder of pictures, also in sub-folders ("/" in the image id).
        cams: folder of `.npz` files, likewise.
        image_ids: which ones; by default all CAM files. An image id without CAM file or picture stays in the list, and
            the run reports it.

    Returns:
        The jobs, in the order of `image_ids`, else of the names.

    Raises:
        PPLFileNotFoundError: if one of the folders is not there, or no CAM file is to be found.
        PPLValueError: if two pictures have the same image id.
    """
    images, cams = Path(images), Path(cams)
    for folder in (images, cams):
        if not folder.is_dir():
            raise PPLFileNotFoundError(f"no folder at {folder}")
    pictures = list_images(images)
    found = {normalize_name(path.relative_to(cams).with_suffix("").as_posix()): path for path in cams.rglob("*.npz")}
    chosen = sorted(found) if image_ids is None else [normalize_name(image_id) for image_id in image_ids]
    if image_ids is None and not chosen:
        raise PPLFileNotFoundError(f"{cams} holds no CAM files (.npz); make them with `ppl cam`, or give their folder")
    return [
        RefineJob(
            image_id, pictures.get(image_id, images / f"{image_id}.jpg"), found.get(image_id, cams / f"{image_id}.npz")
        )
        for image_id in chosen
    ]
