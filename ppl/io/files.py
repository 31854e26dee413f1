"""Write files and folders that appear whole or not at all."""

from __future__ import annotations

import errno
import os
import re
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Literal

from ppl.errors import PPLError, PPLValueError

__all__ = ["FileWriteError", "atomic_folder", "atomic_write"]

# Errors of the disk while data are written; any other OSError inside a `with` block is the caller's own.
_DISK_ERRNOS = {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EFBIG, errno.EROFS}
_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{8}\.tmp")


class FileWriteError(PPLError, OSError):
    """A file cannot be written: the disk is full, permission is missing, or a folder has its name."""

    def __str__(self) -> str:
        """Return the message alone; `OSError` would print its errno tuple."""
        return str(self.args[0]) if self.args else ""


@contextmanager
def atomic_write(path: str | os.PathLike[str], mode: Literal["wb", "w"] = "wb") -> Iterator[IO[Any]]:
    """Open a file that replaces `path` only when the block ends without an error.

    The data are written to a hidden temporary file in the same folder, flushed to the disk, and the file is renamed.
    Readers therefore see the old file or the whole new file, even after a kill or a power failure.

    Args:
        path: file to write; missing parent folders are made.
        mode: "wb" for bytes, "w" for UTF-8 text.

    Yields:
        The open file.

    Raises:
        PPLValueError: if `mode` is another.
        FileWriteError: if the disk is full or the folder cannot be written to. Errors of the block itself pass
            through, and `path` stays as it was.

    Example:
        >>> import tempfile
        >>> folder = tempfile.TemporaryDirectory()
        >>> path = Path(folder.name) / "notes" / "a.txt"
        >>> with atomic_write(path, "w") as handle:
        ...     _ = handle.write("whole or not at all")
        >>> path.read_text()
        'whole or not at all'
        >>> folder.cleanup()
    """
    if mode not in ("wb", "w"):
        raise PPLValueError(f'mode {mode!r} is not understood; use "wb" for bytes or "w" for text')
    path = Path(path)
    with _name_write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = _beside(path)
        # O_EXCL and 0o666: a new file with the permissions of the user's umask (mkstemp sets 0600)
        descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
    try:
        encoding = None if mode == "wb" else "utf-8"
        with _name_write_errors(path, _DISK_ERRNOS), os.fdopen(descriptor, mode, encoding=encoding) as handle:
            yield handle
            handle.flush()
            os.fsync(handle.fileno())
        with _name_write_errors(path):
            os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Fill a folder that appears at `path` only when the block ends without an error.

    Args:
        path: folder to make; it must not exist yet, or be empty.

    Yields:
        A temporary folder beside `path`, to be filled.

    Raises:
        FileWriteError: if `path` is not empty, the disk is full or the parent folder cannot be written to.

    Example:
        >>> import tempfile
        >>> parent = tempfile.TemporaryDirectory()
        >>> with atomic_folder(Path(parent.name) / "set") as folder:
        ...     _ = (folder / "classes.txt").write_text("cat")
        >>> [p.name for p in Path(parent.name).rglob("*")]
        ['set', 'classes.txt']
        >>> parent.cleanup()
    """
    path = Path(path)
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise FileWriteError(f"{path} already holds something; choose another folder or empty it")
    with _name_write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = _beside(path)
        temporary.mkdir()
    try:
        with _name_write_errors(path, _DISK_ERRNOS):
            yield temporary
        with _name_write_errors(path):
            if path.exists():
                path.rmdir()
            os.replace(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def is_temporary(path: Path) -> bool:
    """Return whether a file is a temporary file of `atomic_write` or `atomic_folder`, judged by its name.

    Example:
        >>> is_temporary(Path(".mask.png.0123abcd.tmp")), is_temporary(Path("mask.png"))
        (True, False)
    """
    return _TEMPORARY.fullmatch(path.name) is not None


def _beside(path: Path) -> Path:
    start = os.fsencode(path.name)[:100].decode(
        errors="ignore"
    )  # file systems limit the bytes of a name, not its characters
    return path.with_name(f".{start}.{uuid.uuid4().hex[:8]}.tmp")


@contextmanager
def _name_write_errors(path: Path, errnos: set[int] | None = None) -> Iterator[None]:
    """Raise an `OSError` (only those of `errnos`, if given) again as a FileWriteError that names the file."""
    try:
        yield
    except OSError as error:
        if isinstance(error, PPLError) or (errnos is not None and error.errno not in errnos):
            raise
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        hint = "free some space" if full else "check the path and its permissions"
        raise FileWriteError(f"cannot write {path}: {error.strerror or error}; {hint}") from error
