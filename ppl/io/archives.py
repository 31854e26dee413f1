"""Files inside tar archives, read in any order without unpacking."""

from __future__ import annotations

import io
import os
import posixpath
import tarfile
import warnings
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import BinaryIO, TypeAlias

from ppl.errors import PPLFileNotFoundError, PPLValueError

__all__ = ["ARCHIVE_SUFFIX", "ArchivedFile", "FilePath", "list_archive", "open_binary"]

ARCHIVE_SUFFIX = ".tar"


@dataclass(frozen=True, slots=True)
class ArchivedFile(os.PathLike[str]):
    """A file inside a tar archive; every function that reads images takes one as a path.

    Attributes:
        archive: the archive, which is not compressed.
        name: path of the file inside the archive.
        offset: position of its first byte in the archive.
        length: number of bytes.
    """

    archive: Path
    name: str
    offset: int
    length: int

    def __fspath__(self) -> str:
        return f"{self.archive}/{self.name}"

    def __str__(self) -> str:
        return self.__fspath__()

    @property
    def suffix(self) -> str:
        """The ending of the name, as that of a path."""
        return posixpath.splitext(self.name)[1]

    def is_file(self) -> bool:
        """Return whether the archive is there."""
        return self.archive.is_file()

    def read_bytes(self) -> bytes:
        """Return the content.

        Raises:
            PPLFileNotFoundError: if the archive does not exist.
            PPLValueError: if the archive is shorter than it was.
        """
        try:
            with self.archive.open("rb") as file:
                file.seek(self.offset)
                content = file.read(self.length)
        except FileNotFoundError as error:
            raise PPLFileNotFoundError(f"{self.archive} does not exist any more; put it back") from error
        if len(content) < self.length:
            raise PPLValueError(f"{self.archive} ends inside {self.name}; copy the archive again")
        return content


FilePath: TypeAlias = Path | ArchivedFile
"""A file of its own, or a file inside an archive."""


def open_binary(path: str | os.PathLike[str]) -> BinaryIO:
    """Open a file for reading, also one inside an archive."""
    return io.BytesIO(path.read_bytes()) if isinstance(path, ArchivedFile) else Path(path).open("rb")


def list_archive(path: Path) -> dict[str, ArchivedFile]:
    """List the files in a tar archive by name, without hidden ones; a process reads the headers once.

    Of an archive that is cut off or damaged, the files before that place are listed, with a warning.

    Raises:
        PPLValueError: if the file is compressed, or is no tar archive.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "some.tar"
        ...     with tarfile.open(path, "w") as archive:
        ...         archive.addfile(tarfile.TarInfo("a.jpg"))
        ...     list_archive(path)["a.jpg"].length
        0
    """
    state = path.stat()
    return _list(path, state.st_size, state.st_mtime_ns)


@cache
def _list(path: Path, size: int, _modified: int) -> dict[str, ArchivedFile]:
    files: dict[str, ArchivedFile] = {}
    with path.open("rb") as file:
        try:
            with tarfile.open(fileobj=file, mode="r:") as archive:
                whole = _collect(archive, path, size, files)
                file.seek(archive.offset)
                whole = whole and not any(file.read(tarfile.BLOCKSIZE))  # zeros mark the end
        except tarfile.ReadError as error:
            raise PPLValueError(f"{path} is no tar archive ({error}); unpack a compressed one to .tar") from error
    if not whole:
        warnings.warn(
            f"{path} is cut off or damaged: only the {len(files)} files before that place are used; copy it again",
            stacklevel=3,
        )
    return files


def _collect(archive: tarfile.TarFile, path: Path, size: int, files: dict[str, ArchivedFile]) -> bool:
    """Add the files of an archive, and return whether all of them are whole."""
    try:
        while (member := archive.next()) is not None:
            if member.offset_data + member.size > size:
                return False
            name = posixpath.normpath(member.name)
            if member.isreg() and not any(part.startswith(".") and part != ".." for part in name.split("/")):
                files[name] = ArchivedFile(path, name, member.offset_data, member.size)
    except tarfile.ReadError:
        return False
    return True
