"""Read tags from CSV files, as spreadsheets, annotation tools and people write them."""

from __future__ import annotations

import ast
import csv
import re
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ppl.data.text_files import read_text
from ppl.errors import PPLValueError

__all__ = ["IMAGE_COLUMNS", "LABEL_COLUMNS", "TagRow", "read_tag_rows", "split_cells"]

IMAGE_COLUMNS = ("image", "filename", "file_name", "file", "image_name", "image_path", "path", "image_id")
LABEL_COLUMNS = ("labels", "label", "tags", "tag", "classes", "class", "categories", "category")
_BOX_COLUMNS = {"xmin", "ymin", "xmax", "ymax"}
_DELIMITERS = (",", ";", "\t", "|")
_TAG_SEPARATORS = (";", "|", ",", " ")
_SINGLE_COLUMNS = ("label", "tag", "class", "category")
_ZERO, _ONE = ("0", "0.0", "false", "no"), ("1", "1.0", "true", "yes")

_OPEN_QUOTE = 'a quote (") opens a cell and is not closed on this line; close it, or write it twice if it is meant'


class TagRow(NamedTuple):
    """One row of a table of tags.

    Attributes:
        line: line number in the file, from 1.
        image: name of the image as written.
        tags: names of its classes.
    """

    line: int
    image: str
    tags: tuple[str, ...]


def read_tag_rows(path: Path, classes: Collection[str] | None = None) -> tuple[list[TagRow], tuple[str, ...] | None]:
    r"""Read a table of tags in any of the usual dialects.

    Columns may be separated by commas, semicolons, tabs or "|". One column names the image (`image`, `filename`,
    `path`, ...). Tags stand in one column (`labels`, `tags`, `class`, ...), several of them separated by ";" or "|" (or
    by "," or blanks if every part is a known class), or as a list in brackets; or every class has a column of 0 and 1.
    A table of boxes (with `xmin`, ...) has one row per object instead of one per image, and a table with a column
    `label` (`tag`, `class`, ...) may have one row per tag. The line `sep=;` of a spreadsheet and columns without a name
    are left out.

    Args:
        path: CSV file, UTF-8 or UTF-16 with a byte-order mark.
        classes: known class names, if any.

    Returns:
        The rows, and the names of the columns of 0 and 1 (None where tags stand in one column).

    Raises:
        PPLFileNotFoundError: if the file does not exist.
        PPLValueError: if the dialect is not understood or a row is faulty; the message names the line.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "labels.csv"
        ...     _ = path.write_text("filename;cat;dog\na.jpg;0;1\n")
        ...     read_tag_rows(path)
        ([TagRow(line=2, image='a.jpg', tags=('dog',))], ('cat', 'dog'))
    """
    text = read_text(path, "a CSV with a header image,labels and one row per image")
    lines = text.splitlines(keepends=True)
    if lines and re.fullmatch(r"sep=.", lines[0].strip(), re.IGNORECASE):
        lines[0] = "\n"  # lines keep their numbers
    delimiter = _delimiter(path, next(filter(str.strip, lines), ""))
    rows = _cells(path, lines, delimiter)
    _, first = next(rows)
    header = [cell.strip() for cell in first]
    lower = [_column(cell) for cell in header]
    image = lower.index(next(name for name in IMAGE_COLUMNS if name in lower))
    labels = next((lower.index(name) for name in LABEL_COLUMNS if name in lower), None)
    columns = [column for column, name in enumerate(lower) if column != image and not _is_nameless(name)]
    names, texts, one_hot = [], [], []
    known: dict[Any, Any] = {}  # equal cells and tags are stored once
    for line, cells in rows:
        names.append(_image_name(path, line, cells[image]))
        if labels is None:
            tags = _one_hot(path, line, header, cells, columns)
            one_hot.append((line, known.setdefault(tags, tags)))
        else:
            text = cells[labels].strip()
            texts.append((line, known.setdefault(text, text)))
    if not names:
        raise PPLValueError(f"{path} holds a header and no rows; write one row per image")
    if labels is None:
        found = [TagRow(line, name, tags) for name, (line, tags) in zip(names, one_hot, strict=True)]
        return found, tuple(header[column] for column in columns)
    split = split_cells(path, texts, classes)
    found = [TagRow(line, name, tags) for name, (line, _), tags in zip(names, texts, split, strict=True)]
    single = lower[labels] in _SINGLE_COLUMNS and all(len(row.tags) == 1 for row in found)
    return (_merged(found) if single or set(lower) >= _BOX_COLUMNS else found), None


def _column(cell: str) -> str:
    """Return the name of a column as the table of known names has it: `Image Name` is `image_name`."""
    return cell.strip().lower().replace(" ", "_")


def _is_nameless(column: str) -> bool:
    """Tell whether a column holds the numbers of the rows, as pandas writes them."""
    return not column or column.startswith("unnamed:")


def split_cells(
    path: Path, cells: Sequence[tuple[int, str]], classes: Collection[str] | None = None
) -> list[tuple[str, ...]]:
    """Return the tags of cells that hold several, as text with one separator or as lists in brackets.

    Args:
        path: the file, for messages.
        cells: line number and text of each cell.
        classes: known class names, if any.

    Raises:
        PPLValueError: if the separator is not clear; the message names the line.

    Example:
        >>> split_cells(Path("labels.csv"), [(2, "cat;dog"), (3, "")])
        [('cat', 'dog'), ()]
    """
    tags = {text: _listed(text) for _, text in cells}  # equal cells share their tags
    separator = _separator(path, [cell for cell in cells if tags[cell[1]] is None], classes)
    for text, listed in tags.items():
        tags[text] = _split(text, separator) if listed is None else listed
    return [tags[text] or () for _, text in cells]


def _delimiter(path: Path, line: str) -> str:
    if not line.strip():
        raise PPLValueError(f"{path} is empty; write a header image,labels and one row per image")
    for delimiter in _DELIMITERS:
        header = [_column(cell) for cell in next(csv.reader([line], delimiter=delimiter))]
        if len(header) > 1 and not set(IMAGE_COLUMNS).isdisjoint(header):
            return delimiter
    fix = "it must hold image,labels (or image and one column of 0 and 1 per class)"
    raise PPLValueError(f"{path} line 1: the header is {line.strip()!r}; {fix}")


def _cells(path: Path, lines: list[str], delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the first line and the cells of every row that is not empty, beginning with the header."""
    width = 0
    for line, cells in _rows(path, lines, delimiter):
        width = width or len(cells)
        if not any(cell.strip() for cell in cells):
            continue
        if len(cells) != width:
            fix = 'put ";" between tags, not ","' if delimiter == "," else f"put quotes around cells with {delimiter!r}"
            raise PPLValueError(f"{path} line {line}: {len(cells)} cells instead of {width}; {fix}")
        yield line, cells


def _rows(path: Path, lines: list[str], delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the first line and the cells of every row; the last row is empty."""
    lines = [*lines, ""]  # a row of its own unless a quote is open
    rows = csv.reader(lines, delimiter=delimiter)
    line = 1
    while line <= len(lines):
        try:
            cells = next(rows)
            whole = rows.line_num < len(lines) or line == len(lines)
        except csv.Error:  # the text behind the quote is longer than a cell may be
            whole = False
        if not whole:
            raise PPLValueError(f"{path} line {line}: {_OPEN_QUOTE}")
        yield line, cells
        line = rows.line_num + 1


def _image_name(path: Path, line: int, cell: str) -> str:
    name = cell.strip()
    if not name:
        raise PPLValueError(f"{path} line {line}: the image has no name; fill it in or remove the row")
    _check_one_line(path, line, name)
    return name


def _check_one_line(path: Path, line: int, cell: str) -> None:
    if len(cell.splitlines()) > 1:  # a quote of a later row has closed the cell
        raise PPLValueError(f"{path} line {line}: {_OPEN_QUOTE}")


def _one_hot(path: Path, line: int, header: list[str], cells: list[str], columns: Sequence[int]) -> tuple[str, ...]:
    tags = []
    for column in columns:
        value = cells[column].strip().lower()
        if value not in _ZERO + _ONE:
            fix = "write the tags into a column labels, or 0 or 1 into every column but the image's"
            raise PPLValueError(f"{path} line {line}: column {header[column]!r} holds {cells[column]!r}; {fix}")
        if value in _ONE:
            tags.append(header[column])
    return tuple(tags)


def _separator(path: Path, cells: Sequence[tuple[int, str]], classes: Collection[str] | None) -> str:
    """Return the separator of tags in one cell."""
    for line, cell in cells:
        _check_one_line(path, line, cell)
    used = [separator for separator in (";", "|", ",") if any(separator in cell for _, cell in cells)]
    if classes is not None:
        known = set(classes)
        fitting = (s for s in _TAG_SEPARATORS if all(known.issuperset(_split(cell, s)) for _, cell in cells))
        return next(fitting, used[0] if used else ";")
    if used in ([], [";"], ["|"]):
        return used[0] if used else ";"
    line, cell = next((line, cell) for line, cell in cells if used[-1] in cell)
    what = f"the tags {cell!r} hold {' and '.join(map(repr, used))}, so where one ends is not clear"
    raise PPLValueError(f'{path} line {line}: {what}; put ";" between tags, or list the classes in classes.txt')


def _listed(cell: str) -> tuple[str, ...] | None:
    """Return the tags of a cell like `["cat", "dog"]` or `{"choices": ["cat"]}` (Label Studio); None for others."""
    if not cell.startswith(("[", "{")):
        return None
    try:
        content = ast.literal_eval(cell)
    except (ValueError, SyntaxError):
        return None
    if isinstance(content, dict):
        content = content.get("choices")
    return tuple(map(str, content)) if isinstance(content, list) else None


def _split(cell: str, separator: str) -> tuple[str, ...]:
    return tuple(tag for tag in (part.strip() for part in cell.split(separator)) if tag)


def _merged(rows: Sequence[TagRow]) -> list[TagRow]:
    merged: dict[str, TagRow] = {}
    for row in rows:
        known = merged[row.image].tags if row.image in merged else ()
        merged[row.image] = row._replace(tags=tuple(dict.fromkeys(known + row.tags)))
    return list(merged.values())
