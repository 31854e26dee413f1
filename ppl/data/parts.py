"""Masks of the parts of objects, which show which part of an object a map covers."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ppl.data.text_files import read_lines
from ppl.errors import PPLValueError
from ppl.io import read_mask

__all__ = ["PartMasks"]


class PartMasks:
    r"""The folder `masks_parts` of a data set: `<image id>.png` with 0 for no part and 1, 2, ... for the parts.

    The file `masks_parts/parts.txt` holds the name of part 1, 2, ..., one per line. Not every image needs a file.

    Args:
        root: folder of the data set.

    Raises:
        PPLValueError: if `parts.txt` is empty or holds a name twice.

    Example:
        >>> import tempfile
        >>> folder = tempfile.TemporaryDirectory()
        >>> (Path(folder.name) / "masks_parts").mkdir()
        >>> _ = (Path(folder.name) / "masks_parts" / "parts.txt").write_text("head\nbody\n")
        >>> parts = PartMasks(folder.name)
        >>> parts.names, parts.read("an image without a file")
        (('head', 'body'), None)
        >>> folder.cleanup()
    """

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self.folder = Path(root) / "masks_parts"
        self.names: tuple[str, ...] | None = None
        """Names of part 1, 2, ...; None without the file `parts.txt`."""
        file = self.folder / "parts.txt"
        if file.is_file():
            names = tuple(name for _, name in read_lines(file, "a list of names, one per line"))
            if not names or len(set(names)) < len(names):
                raise PPLValueError(f"{file} holds the names {list(names)}: write one name per line, each one once")
            self.names = names

    def __bool__(self) -> bool:
        """Return whether the data set has masks of parts."""
        return self.folder.is_dir()

    def read(self, image_id: str) -> npt.NDArray[np.uint8] | None:
        """Return the mask of an image, (H, W), or None if there is no file for the image.

        Raises:
            PPLValueError: if the file is broken.
        """
        path = self.folder / f"{image_id}.png"
        return read_mask(path) if path.is_file() else None
