"""Image grids: one row per image, one column per kind of picture, such as image, CAM and mask."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from ppl.errors import PPLValueError
from ppl.io import atomic_write
from ppl.report.fonts import dejavu, installed_fonts
from ppl.report.overlay import as_rgb, class_colours

__all__ = ["GridRow", "image_grid"]

_FORMATS = {
    ".png": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".webp": "WEBP",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".pdf": "PDF",
}
_LONGEST_SIDE = {"JPEG": 65500, "PDF": 65500, "WEBP": 16383}  # in pixels; a PDF holds a JPEG
_GAP, _MARGIN = 8, 20
_BACKGROUND, _TEXT, _EMPTY = (255, 255, 255), (30, 30, 34), (236, 236, 240)


@dataclass(frozen=True)
class GridRow:
    """One row of an image grid.

    Attributes:
        title: text above the row, such as the image id and the tags.
        cells: one picture per column, (H, W, 3) uint8 or PIL; None leaves the cell empty.
    """

    title: str
    cells: Sequence[Any]


def image_grid(
    rows: Sequence[GridRow],
    columns: Sequence[str],
    path: str | os.PathLike[str] | None = None,
    *,
    classes: Sequence[str] = (),
    title: str = "",
    cell: tuple[int, int] = (220, 220),
) -> Image.Image:
    """Draw pictures in rows and columns with titles and a legend of classes.

    Args:
        rows: the rows.
        columns: the heading of each column.
        path: the file to write, whole or not at all; its suffix gives the format: PNG, JPEG, WebP, TIFF or PDF. None:
            no file.
        classes: names for the legend, in the colours of `class_colours`.
        title: text at the top.
        cell: (height, width) that every picture is scaled to fit into.

    Returns:
        The grid, an RGB image.

    Raises:
        PPLValueError: if there is no row, the cells of a row are not as many as the columns, a picture is empty, the
            suffix is unknown, or the grid is too large for the format.
        FileWriteError: if the file cannot be written.

    Example:
        >>> import numpy as np
        >>> picture = np.zeros((30, 40, 3), np.uint8)
        >>> image_grid([GridRow("a", [picture, None])], ["image", "mask"], classes=["cat"], cell=(60, 80)).mode
        'RGB'
    """
    if not rows or not columns:
        raise PPLValueError(
            f"an image grid of {len(rows)} rows and {len(columns)} columns is empty; give at least one of each"
        )
    suffix = ".png" if path is None else Path(path).suffix.lower()
    if suffix not in _FORMATS:
        raise PPLValueError(f"an image grid cannot be written to {path}; its name must end in {', '.join(_FORMATS)}")
    for row in rows:
        if len(row.cells) != len(columns):
            raise PPLValueError(
                f"row {row.title!r} has {len(row.cells)} cells for {len(columns)} columns; use None for an empty cell"
            )
    columns, classes, title = [_line(name) for name in columns], [_line(name) for name in classes], _line(title)
    titles = [_line(row.title) for row in rows]
    others = installed_fonts([title, *titles, *columns, *classes])

    def font(text: str, size: int, *, bold: bool = False) -> ImageFont.FreeTypeFont:
        return _font(others.get(text, dejavu(bold=bold)), size)

    heads = [font(name, 15, bold=True) for name in columns]
    pictures = [[None if item is None else _fit(item, cell) for item in row.cells] for row in rows]
    wide = [
        max([_text_width(name, head)] + [p.width for p in column if p])
        for name, head, column in zip(columns, heads, zip(*pictures, strict=True), strict=True)
    ]
    high = [max([p.height for p in line if p] or [cell[0] // 2]) for line in pictures]
    width = sum(wide) + _GAP * (len(wide) - 1) + 2 * _MARGIN
    legend = _wrap(classes, [font(name, 14) for name in classes], width - 2 * _MARGIN)
    top = _MARGIN + (34 if title else 0)
    height = top + 28 + sum(h + 26 + _GAP for h in high) + 28 * len(legend) + _MARGIN
    longest = _LONGEST_SIDE.get(_FORMATS[suffix], math.inf)
    if max(width, height) > longest:
        raise PPLValueError(
            f"the grid is {width} x {height} pixels, {suffix} holds {longest} a side; draw fewer rows or write a .png"
        )
    grid = Image.new("RGB", (width, height), _BACKGROUND)
    pen = ImageDraw.Draw(grid)
    if title:
        large = font(title, 20, bold=True)
        pen.text((_MARGIN, _MARGIN - 4), _shorten(title, large, width - 2 * _MARGIN), fill=_TEXT, font=large)
    lefts = [_MARGIN + sum(wide[:i]) + _GAP * i for i in range(len(wide))]
    for left, name, head in zip(lefts, columns, heads, strict=True):
        pen.text((left, top), name, fill=_TEXT, font=head)
    top += 28
    for name, line, tall in zip(titles, pictures, high, strict=True):
        small = font(name, 14)
        pen.text((_MARGIN, top), _shorten(name, small, width - 2 * _MARGIN), fill=_TEXT, font=small)
        for left, breadth, picture in zip(lefts, wide, line, strict=True):
            if picture is None:
                pen.rectangle((left, top + 22, left + breadth - 1, top + 21 + tall), fill=_EMPTY)
            else:
                grid.paste(picture, (left, top + 22))
        top += tall + 26 + _GAP
    colours = class_colours(len(classes))
    for entries in legend:
        left = _MARGIN
        for index, name, breadth in entries:
            pen.rectangle((left, top + 4, left + 15, top + 19), fill=tuple(colours[index].tolist()))
            pen.text((left + 21, top + 2), name, fill=_TEXT, font=font(classes[index], 14))
            left += breadth
        top += 28
    if path is not None:
        with atomic_write(path) as handle:
            grid.save(handle, format=_FORMATS[suffix], quality=92)  # lossless formats ignore the quality
    return grid


def _fit(item: Any, cell: tuple[int, int]) -> Image.Image:
    picture = Image.fromarray(as_rgb(item))
    if 0 in picture.size:
        raise PPLValueError(
            f"a picture of {picture.width} x {picture.height} pixels is empty; use None for an empty cell"
        )
    ratio = min(cell[0] / picture.height, cell[1] / picture.width)
    size = max(1, round(picture.width * ratio)), max(1, round(picture.height * ratio))
    return picture.resize(size, Image.Resampling.LANCZOS)


def _wrap(
    classes: Sequence[str], fonts: Sequence[ImageFont.FreeTypeFont], width: int
) -> list[list[tuple[int, str, int]]]:
    """Return the lines of the legend; each entry is (class index, shortened name, width)."""
    lines: list[list[tuple[int, str, int]]] = []
    used = width + 1
    for index, (whole, font) in enumerate(zip(classes, fonts, strict=True)):
        name = _shorten(whole, font, width - 21)
        breadth = 21 + _text_width(name, font) + 22
        if used + breadth > width:
            lines.append([])
            used = 0
        lines[-1].append((index, name, breadth))
        used += breadth
    return lines


def _line(text: str) -> str:
    """Replace line breaks, which cannot be laid out, by blanks."""
    return " ".join(text.split())


@lru_cache(maxsize=32)
def _font(path: Path, size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(str(path), size)


def _text_width(text: str, font: ImageFont.FreeTypeFont) -> int:
    return int(font.getlength(text)) + 1


def _shorten(text: str, font: ImageFont.FreeTypeFont, width: int) -> str:
    if _text_width(text, font) <= width:
        return text
    while text and _text_width(text + "…", font) > width:
        text = text[:-1]
    return text + "…"
