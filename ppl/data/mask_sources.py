"""Masks whose pixels do not hold class indices as they are: colours, and values with another meaning."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ppl.data.dataset import BACKGROUND_NAMES, IGNORE_NAMES, MaskSource
from ppl.data.text_files import read_lines
from ppl.errors import PPLValueError
from ppl.io import read_mask
from ppl.io.masks import read_color_mask

__all__ = ["ColorMask", "ColorTable", "MappedMask", "find_color_table", "labels_of_mask"]

_UNLABELLED_NAMES = (*IGNORE_NAMES, "ignore", "void", "unlabelled", "unlabeled")

Color = tuple[int, int, int]


@dataclass(frozen=True)
class ColorTable:
    """The meaning of colours in masks.

    Attributes:
        classes: class names, without background and ignored regions.
        indices: class index of each colour: 0 background, 1..K, 255 ignore.
    """

    classes: tuple[str, ...]
    indices: tuple[tuple[Color, int], ...]

    def reordered(self, classes: Sequence[str], source: Path) -> ColorTable:
        """Return the table for another order of the classes.

        Raises:
            PPLValueError: if the names are not the same.
        """
        if set(classes) != set(self.classes):
            differing = sorted(set(classes) ^ set(self.classes))
            raise PPLValueError(f"{source} and the colour table differ in the classes {', '.join(differing)}")
        index = {1 + i: 1 + classes.index(name) for i, name in enumerate(self.classes)}
        return ColorTable(tuple(classes), tuple((color, index.get(old, old)) for color, old in self.indices))


@dataclass(frozen=True)
class ColorMask:
    """A mask file whose colours mean classes.

    Attributes:
        path: mask file.
        table: meaning of its colours.
    """

    path: Path
    table: ColorTable

    def read(self) -> npt.NDArray[np.uint8]:
        """Return (H, W) uint8 class indices; see `ppl.io.masks.read_color_mask` for errors."""
        return read_color_mask(self.path, dict(self.table.indices))


@dataclass(frozen=True)
class MappedMask:
    """A mask some of whose values have another meaning.

    Attributes:
        mask: file or source of the mask.
        values: pairs of the value that is stored and the class index that it means.

    Example:
        >>> from ppl.data import InstanceMask
        >>> MappedMask(InstanceMask((1, 4), ((0, 2.0, [[0, 0, 2, 0, 2, 1, 0, 1]]),)), ((0, 255),)).read().tolist()
        [[1, 1, 255, 255]]
    """

    mask: Path | MaskSource
    values: tuple[tuple[int, int], ...]

    def defines(self, value: int) -> bool:
        """Return whether the meaning of a stored value is set."""
        return any(stored == value for stored, _ in self.values)

    def read(self) -> npt.NDArray[np.uint8]:
        """Return (H, W) uint8 class indices."""
        meaning = np.arange(256, dtype=np.uint8)
        for value, index in self.values:
            meaning[value] = index
        mask = self.mask.read() if isinstance(self.mask, MaskSource) else read_mask(self.mask)
        return meaning[mask]


def find_color_table(*folders: Path) -> ColorTable | None:
    """Read the first colour table among the folders: `labelmap.txt` (CVAT) or `class_dict.csv` (name,r,g,b).

    The names background, void, ignore and unlabelled mean the values 0 and 255 of our masks. Black is the background
    if the table does not mention it.

    Returns:
        The table; None if no folder holds one.

    Raises:
        PPLValueError: if a line is faulty, or two classes have the same colour.
    """
    for folder in folders:
        if (folder / "labelmap.txt").is_file():
            return _color_table(folder / "labelmap.txt", _labelmap(folder / "labelmap.txt"))
        if (folder / "class_dict.csv").is_file():
            path = folder / "class_dict.csv"
            _, *rows = read_lines(path, "a table with the header name,r,g,b")
            return _color_table(path, [(n, line.split(",")[0].strip(), line.split(",")[1:]) for n, line in rows])
    return None


def labels_of_mask(mask: npt.NDArray[np.uint8]) -> tuple[int, ...]:
    """Return the class indices 0..K-1 of a mask's pixels, in rising order.

    Example:
        >>> labels_of_mask(np.array([[0, 3, 255, 1]], np.uint8))
        (0, 2)
    """
    present = np.flatnonzero(np.bincount(mask.ravel(), minlength=256)).tolist()
    return tuple(value - 1 for value in present if value not in (0, 255))


def _labelmap(path: Path) -> list[tuple[int, str, list[str]]]:
    """Return line, name and colour of the lines `name:r,g,b:parts:actions`."""
    rows = []
    for number, line in read_lines(path, "a table with name:red,green,blue on every line"):
        if not line.startswith("#"):
            name, _, rest = line.partition(":")
            rows.append((number, name.strip(), rest.partition(":")[0].split(",")))
    return rows


def _color_table(path: Path, rows: Sequence[tuple[int, str, Sequence[str]]]) -> ColorTable:
    classes: list[str] = []
    indices: dict[Color, int] = {}
    for line, name, cells in rows:
        try:
            red, green, blue = (int(cell) for cell in cells)
            if not 0 <= min(red, green, blue) <= max(red, green, blue) <= 255:
                raise ValueError
        except ValueError:
            raise PPLValueError(f"{path} line {line}: {name!r} needs a colour: red,green,blue in 0..255") from None
        if (red, green, blue) in indices:
            raise PPLValueError(f"{path} line {line}: {name!r} has the colour of another class; choose another")
        if name.lower() in BACKGROUND_NAMES:
            indices[red, green, blue] = 0
        elif name.lower() in _UNLABELLED_NAMES:
            indices[red, green, blue] = 255
        else:
            classes.append(name)
            indices[red, green, blue] = len(classes)
    if not classes:
        raise PPLValueError(f"{path} names no class; write name:red,green,blue on every line")
    indices.setdefault((0, 0, 0), 0)
    return ColorTable(tuple(classes), tuple(indices.items()))
