"""The confidence of the labels of a mask, in a file beside the mask."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ppl.errors import PPLFileNotFoundError
from ppl.io.files import atomic_write
from ppl.io.images import BadImageError

__all__ = ["confidence_file", "read_confidence", "write_confidence"]


def confidence_file(mask: str | os.PathLike[str]) -> Path:
    """Return the file that holds the confidence of a mask's labels: `.npz` in place of `.png`.

    Example:
        >>> confidence_file("refined/cat.v1.png").as_posix()
        'refined/cat.v1.npz'
    """
    return Path(mask).with_suffix(".npz")


def write_confidence(mask: str | os.PathLike[str], probs: npt.NDArray[Any]) -> None:
    """Write the probability of the best label of each pixel, in steps of 1/255, whole or not at all.

    Args:
        mask: file of the mask; see `confidence_file`.
        probs: (L,H,W) probabilities in [0,1].

    Raises:
        FileWriteError: if the file cannot be written.
    """
    with atomic_write(confidence_file(mask)) as handle:
        np.savez_compressed(handle, confidence=np.rint(probs.max(axis=0) * 255).astype(np.uint8))


def read_confidence(mask: str | os.PathLike[str]) -> npt.NDArray[np.uint8]:
    """Read the confidence of a mask's labels.

    Args:
        mask: file of the mask; see `confidence_file`.

    Returns:
        (H,W) uint8: 255 is certain.

    Raises:
        PPLFileNotFoundError: if the file does not exist.
        BadImageError: if the file is truncated or holds something else.

    Example:
        >>> import tempfile
        >>> folder = tempfile.TemporaryDirectory()
        >>> mask = Path(folder.name) / "cat.png"
        >>> write_confidence(mask, np.array([[[0.0, 0.4]], [[1.0, 0.6]]]))
        >>> read_confidence(mask).tolist()
        [[255, 153]]
        >>> folder.cleanup()
    """
    path = confidence_file(mask)
    try:
        with np.load(path, allow_pickle=False) as file:
            values: npt.NDArray[np.uint8] = file["confidence"]
    except FileNotFoundError as error:
        raise PPLFileNotFoundError(f"{path} does not exist: make the masks again, with their confidence") from error
    except Exception as error:  # numpy and zip raise many errors on broken bytes
        raise BadImageError(f"{path} holds no confidence of labels: {error}; make the masks again") from error
    if values.ndim != 2 or values.dtype != np.uint8:
        raise BadImageError(f"{path}: confidence must be (H,W) uint8, got {values.shape} {values.dtype}")
    return values
