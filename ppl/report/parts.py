"""The parts of a report: tables, pictures, and galleries of pictures in several stages."""

from __future__ import annotations

import base64
import io
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

from PIL import Image

from ppl.errors import PPLFileNotFoundError
from ppl.report.overlay import as_rgb, class_colours

__all__ = ["Gallery", "LegendEntry", "Picture", "Stages", "Table", "legend", "thumbnail"]

_LONGEST = 400
"""Longest side in pixels of a drawn picture on a page; larger ones are shrunk, so that a page stays small."""


def thumbnail(image: Any) -> Image.Image:
    """Return a PIL image or an (H, W, 3) uint8 array as an RGB image of at most 400 pixels a side.

    Raises:
        PPLValueError: if an array is no picture.
    """
    picture = Image.fromarray(as_rgb(image))
    picture.thumbnail((_LONGEST, _LONGEST), Image.Resampling.LANCZOS)
    return picture


class LegendEntry(NamedTuple):
    """A class and its colour, such as "#fa2828"."""

    name: str
    colour: str


def legend(classes: Sequence[str]) -> list[LegendEntry]:
    """Return the classes with the colours that `overlay` and `overlay_mask` give them.

    Example:
        >>> legend(["cat"])
        [LegendEntry(name='cat', colour='#fa2828')]
    """
    colours = class_colours(len(classes)).tolist()
    return [LegendEntry(name, "#" + bytes(rgb).hex()) for name, rgb in zip(classes, colours, strict=True)]


class _Cell(NamedTuple):
    text: str
    best: bool
    value: float | None
    """The number by which rows are sorted; NaN for a missing number, None for a text."""


@dataclass(frozen=True)
class Table:
    """A table of the report, whose rows a reader can sort by any column.

    Attributes:
        title: heading of the table.
        columns: heading of each column; the first column holds the names of the rows.
        rows: the cells of each row. Floats are shares in 0..1 and are printed in percent, None and NaN as a dash, other
            values as text. Numbers of numpy and torch count as Python's.
        note: a line below the table, such as the split on which a threshold was chosen.
        compare: set the largest float in bold, in each "column" or in each "row"; None: in neither.
        heat: tint each share by its size, as in a confusion matrix; such a table keeps the order of its rows.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]
    note: str = ""
    compare: Literal["column", "row"] | None = "column"
    heat: bool = False
    kind: ClassVar[str] = "table"

    def __post_init__(self) -> None:
        object.__setattr__(self, "rows", [[_plain(value) for value in row] for row in self.rows])

    def cells(self) -> list[list[_Cell]]:
        """Return the printed text of every cell, row by row."""
        numbers = [self.is_number(column) for column in range(len(self.columns))]
        return [
            [_Cell(_text(v), self._is_best(v, i, row), _sort_key(v) if numbers[i] else None) for i, v in enumerate(row)]
            for row in self.rows
        ]

    def is_number(self, column: int) -> bool:
        """Return whether a column holds numbers only, which are aligned to the right."""
        return all(row[column] is None or _is_number(row[column]) for row in self.rows)

    def _is_best(self, value: Any, column: int, row: Sequence[Any]) -> bool:
        if self.compare is None or not isinstance(value, float):
            return False
        rivals = row if self.compare == "row" else [other[column] for other in self.rows]
        numbers = [v for v in rivals if isinstance(v, float) and not math.isnan(v)]
        return len(set(numbers)) > 1 and value == max(numbers)


@dataclass(frozen=True)
class Picture:
    """A picture of the report.

    Attributes:
        title: heading of the picture.
        image: file, PIL image, (H, W, 3) uint8 array, or the text of an SVG drawing.
        caption: text below the picture.
    """

    title: str
    image: Any
    caption: str = ""
    kind: ClassVar[str] = "picture"

    def source(self) -> str:
        """Return the picture as a data URI: a file or a drawing as it is, pixels as JPEG of at most 400 pixels a side.

        Raises:
            PPLFileNotFoundError: if the file is missing.
            PPLValueError: if an array is no picture.
        """
        if isinstance(self.image, str) and self.image.startswith("<svg"):
            return _data_uri("svg+xml", self.image.encode())
        if isinstance(self.image, (str, os.PathLike)):
            path = Path(self.image)
            if not path.is_file():
                raise PPLFileNotFoundError(f"{path} is missing; draw the picture {self.title!r} before the report")
            kind = path.suffix[1:].lower()
            return _data_uri({"jpg": "jpeg", "svg": "svg+xml"}.get(kind, kind), path.read_bytes())
        buffer = io.BytesIO()
        thumbnail(self.image).save(buffer, "JPEG", quality=82, optimize=True)
        return _data_uri("jpeg", buffer.getvalue())


@dataclass(frozen=True)
class Stages:
    """Pictures of one image in several stages, such as image, CAM and mask, among which a slider chooses.

    Attributes:
        title: the image id.
        pictures: one per stage, titled by the stage.
        caption: a line below the title, such as the tags.
    """

    title: str
    pictures: Sequence[Picture]
    caption: str = ""


@dataclass(frozen=True)
class Gallery:
    """Images in several stages under one heading.

    Attributes:
        title: heading of the gallery.
        images: the images.
        note: a line below the heading.
        start: title of the stage that the sliders show first; "": the first stage.
        classes: the classes of the legend, in the order of their indices.
    """

    title: str
    images: Sequence[Stages]
    note: str = ""
    start: str = ""
    classes: Sequence[str] = ()
    kind: ClassVar[str] = "gallery"

    def legend(self) -> list[LegendEntry]:
        """Return the classes and their colours."""
        return legend(self.classes)


def _data_uri(kind: str, content: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def _plain(value: Any) -> Any:
    """Return a number of numpy or torch as a Python number, and other values as they are."""
    return value.item() if getattr(value, "shape", None) == () and hasattr(value, "item") else value


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _sort_key(value: Any) -> float:
    return math.nan if value is None else float(value)


def _text(value: Any) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "–"
    return f"{100 * value:.1f}" if isinstance(value, float) else str(value)
