"""Find the image files that lists, tables and annotation files mean."""

from __future__ import annotations

from pathlib import Path
from typing import Literal
from urllib.parse import unquote

from ppl.data.text_files import read_lines
from ppl.errors import PPLFileNotFoundError, PPLValueError, nearest
from ppl.io.archives import FilePath
from ppl.io.listing import by_image_id, examples, list_image_files, normalize_name, without_suffix

__all__ = ["ImageIndex", "Missing", "find_listed"]

Missing = Literal["error", "keep"]
"""Whether a listed image without a file is an error, or is kept in the data set for `check_images` to report."""


class ImageIndex:
    r"""The image files of a folder, found by names as other tools write them.

    Args:
        folder: folder of the images.
        unique: whether two files that differ only in their extension are an error even if neither is asked for.

    Attributes:
        images: path by image id.

    Example:
        >>> import tempfile
        >>> from PIL import Image
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     Image.new("RGB", (4, 3)).save(Path(folder) / "a.jpg")
        ...     index = ImageIndex(Path(folder))
        ...     [index.find(name, "line 1")[0] for name in ("a.jpg", "images/a.jpg", r"C:\photos\a.jpg")]
        ['a', 'a', 'a']
    """

    def __init__(self, folder: Path, *, unique: bool = True) -> None:
        self.folder = folder
        self._files = list_image_files(folder)
        if unique:
            self.images = by_image_id(self._files)
        else:
            self.images = self._files.renamed((without_suffix(name), name) for name in self._files)
        self._lost: dict[str, str] = {}
        self._asked = 0
        self._by_base: dict[str, str | None] = {}  # None where several images have the name
        for image_id in self.images:
            base = image_id.rpartition("/")[2]
            self._by_base[base] = None if base in self._by_base else image_id

    def find(self, name: str, place: str) -> tuple[str, FilePath]:
        r"""Return the image id and the path of the image that a name means.

        The name may lack the extension, lead to another folder (`images/a.jpg`, `C:\photos\a.jpg`,
        `../../upload/a.jpg`) or be percent-encoded. The file at that path below the folder is taken, else the file at
        the longest end of the path that exists. The base name alone is enough if it is unique among the images.

        Args:
            name: name as written.
            place: file and line of the name, for the error of `check`.

        Returns:
            Image id and path. If no file is found they follow from the name, and `check` reports the image.
        """
        self._asked += 1
        name = normalize_name(name)
        found = self.match(name)
        if found is not None:
            return found
        self._lost[name] = place
        name = name.replace("\\", "/")
        return without_suffix(name), self.folder / name

    def match(self, name: str) -> tuple[str, FilePath] | None:
        """Return the image id and the path that `find` would return; None if no file is found."""
        name = normalize_name(name)
        for spelling in (name, unquote(name.rpartition("?d=")[2])):  # Label Studio: /data/local-files/?d=a%20b.jpg
            if spelling in self._files:
                return without_suffix(spelling), self._files[spelling]
            for path in (spelling, spelling.replace("\\", "/")):
                image_id = self._match(without_suffix(path))
                if image_id is not None:
                    return image_id, self.images[image_id]
        return None

    def forget(self) -> None:
        """Forget which images were asked for, so that `check` reports only images that are asked for afterwards."""
        self._lost, self._asked = {}, 0

    def check(self, missing: Missing) -> None:
        """Raise PPLFileNotFoundError if `missing` is "error" and an image was not found; names up to three of them."""
        if not self._lost or missing == "keep":
            return
        name, place = next(iter(self._lost.items()))
        if len(self._lost) == 1:
            close = nearest(without_suffix(name), self.images)
            raise PPLFileNotFoundError(f"{place}: {self.folder} has no file for {name!r}{close}")
        what = f"{len(self._lost)} of {self._asked} listed images have no file in {self.folder}: {examples(self._lost)}"
        raise PPLFileNotFoundError(f"{what}; the first is listed in {place}; the folder holds {examples(self.images)}")

    def _match(self, image_id: str) -> str | None:
        if image_id in self.images:
            return image_id
        parts = image_id.split("/")
        for start in range(1, len(parts) - 1):
            if (end := "/".join(parts[start:])) in self.images:
                return end
        return self._by_base.get(parts[-1])


def find_listed(path: Path, index: ImageIndex) -> dict[str, int]:
    """Find the images of a list with one name per line.

    Further columns are ignored: `JPEGImages/a.jpg SegmentationClassAug/a.png`, or `a 1` in a list of VOC's classes.

    Returns:
        Line of the name by image id.

    Raises:
        PPLFileNotFoundError: if the list does not exist.
        PPLValueError: if the list is empty or an image comes twice.
    """
    lines: dict[str, int] = {}
    for number, line in read_lines(path, "a list of image names, one per line"):
        first = line.split()[0]
        name = first if index.match(line) is None and index.match(first) is not None else line
        image_id, _ = index.find(name, f"{path} line {number}")
        if image_id in lines:
            what = f"{path} line {number}: {name!r} is already on line {lines[image_id]}"
            raise PPLValueError(f"{what}; remove one of them")
        lines[image_id] = number
    if not lines:
        raise PPLValueError(f"{path} is empty; write one image name per line")
    return lines
