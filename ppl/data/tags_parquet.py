"""Read tags from Parquet files."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

from ppl.data.tags_csv import IMAGE_COLUMNS, LABEL_COLUMNS, TagRow, split_cells
from ppl.errors import PPLFileNotFoundError, PPLValueError
from ppl.extras import require
from ppl.io.listing import normalize_name

__all__ = ["read_parquet_rows"]


def read_parquet_rows(
    path: Path, classes: Collection[str] | None = None
) -> tuple[list[TagRow], tuple[str, ...] | None]:
    """Read a table of tags from a Parquet file: :func:`ppl.data.tags_csv.read_tag_rows` for tables of many rows.

    One column names the image. Tags stand in one column, as a list of names or as text like a cell of the CSV, or every
    class has a column of 0 and 1 (or false and true). The names of the columns are those of the CSV.

    Args:
        path: the file.
        classes: known class names, if any.

    Returns:
        The rows, and the names of the columns of 0 and 1 (None where tags stand in one column).

    Raises:
        MissingExtraError: if pyarrow is not installed.
        PPLFileNotFoundError: if the file does not exist.
        PPLValueError: if the file is damaged, or a column or value is not understood; the message names the row.
    """
    parquet = require("pyarrow.parquet", extra="parquet")
    if not path.is_file():
        raise PPLFileNotFoundError(f"{path} is missing; it should be a table with columns image and labels")
    try:
        table = parquet.read_table(path)
    except (ValueError, OSError) as error:
        raise PPLValueError(f"{path} is no whole Parquet file: {str(error).splitlines()[0]}") from error
    lower = {name.lower(): name for name in table.column_names}
    image = next((lower[name] for name in IMAGE_COLUMNS if name in lower), None)
    if image is None or len(lower) < 2:
        fix = "it must hold image,labels (or image and one column of 0 and 1 per class)"
        raise PPLValueError(f"{path} has the columns {', '.join(table.column_names)}; {fix}")
    if not table.num_rows:
        raise PPLValueError(f"{path} holds no rows; write one row per image")
    names = [_name(path, line, value) for line, value in enumerate(table[image].to_pylist(), start=1)]
    labels = next((lower[name] for name in LABEL_COLUMNS if name in lower), None)
    if labels is None:
        columns = tuple(normalize_name(name) for name in table.column_names if name != image)
        tags = _one_hot(path, table, image)
    else:
        columns, tags = None, _tags(path, table[labels].to_pylist(), classes)
    rows = [TagRow(line, name, found) for line, (name, found) in enumerate(zip(names, tags, strict=True), start=1)]
    return rows, columns


def _name(path: Path, line: int, value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise PPLValueError(f"{path} line {line}: the image is named {value!r}; write its file name as text")
    return normalize_name(value.strip())


def _tags(path: Path, values: list[Any], classes: Collection[str] | None) -> list[tuple[str, ...]]:
    if any(isinstance(value, str) for value in values):
        texts = [(line, normalize_name(value or "").strip()) for line, value in enumerate(values, start=1)]
        return split_cells(path, texts, classes)
    for line, value in enumerate(values, start=1):
        if value is not None and not (isinstance(value, list) and all(isinstance(tag, str) for tag in value)):
            raise PPLValueError(f"{path} line {line}: the tags are {value!r}; write class names, as text or as a list")
    return [tuple(normalize_name(tag).strip() for tag in value or ()) for value in values]


def _one_hot(path: Path, table: Any, image: str) -> list[tuple[str, ...]]:
    tags: list[list[str]] = [[] for _ in range(table.num_rows)]
    for column in table.column_names:
        if column == image:
            continue
        for line, value in enumerate(table[column].to_pylist(), start=1):
            if value not in (0, 1):
                fix = "write the tags into a column labels, or 0 or 1 into every column but the image's"
                raise PPLValueError(f"{path} line {line}: column {column!r} holds {value!r}; {fix}")
            if value:
                tags[line - 1].append(normalize_name(column))
    return [tuple(found) for found in tags]
