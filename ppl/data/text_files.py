"""Read text files with one name per line, and the text of other small files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ppl.errors import PPLFileNotFoundError, PPLValueError
from ppl.io.listing import normalize_name

__all__ = ["read_classes", "read_lines", "read_text"]

_BYTE_ORDER_MARKS = {b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}


def read_text(path: Path, purpose: str) -> str:
    """Return the text of a UTF-8 file (UTF-16 if it has a byte-order mark) in NFC.

    Args:
        path: text file.
        purpose: description of the file for the error if it is missing.

    Raises:
        PPLFileNotFoundError: if the file does not exist.
        PPLValueError: if the content is in another encoding.
    """
    try:
        content = path.read_bytes()
        # Windows editors put a byte-order mark in front of UTF-8 too
        return normalize_name(content.decode(_BYTE_ORDER_MARKS.get(content[:2], "utf-8-sig")))
    except FileNotFoundError as error:
        raise PPLFileNotFoundError(f"{path} is missing; it should be {purpose}") from error
    except UnicodeDecodeError as error:
        raise PPLValueError(
            f"{path} is not UTF-8 text ({error.reason} at byte {error.start}); save it as UTF-8"
        ) from error


def read_lines(path: Path, purpose: str) -> Iterator[tuple[int, str]]:
    """Yield number (from 1) and stripped text of every line that is not empty."""
    for number, line in enumerate(read_text(path, purpose).splitlines(), start=1):
        if line.strip():
            yield number, line.strip()


def read_classes(path: Path) -> tuple[str, ...]:
    """Read the class names of a `classes.txt`: one per line, each once.

    Raises:
        PPLFileNotFoundError: if the file does not exist.
        PPLValueError: if it is empty, a name comes twice or holds a ";".
    """
    seen: dict[str, int] = {}
    for number, name in read_lines(path, "a file with one class name per line"):
        if ";" in name:
            raise PPLValueError(
                f'{path} line {number}: {name!r} holds a ";", which separates tags in labels.csv; rename it'
            )
        if name in seen:
            raise PPLValueError(f"{path} line {number}: {name!r} is already on line {seen[name]}; remove one of them")
        seen[name] = number
    if not seen:
        raise PPLValueError(f"{path} is empty; write one class name per line")
    return tuple(seen)
