"""Records of finished work: which results of a folder are finished, and from which inputs each was made."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from filelock import FileLock

from ppl.errors import PPLValueError
from ppl.io import FileWriteError, atomic_write
from ppl.parallel.share import current_share

__all__ = ["Record"]

_Entry = str
"""Sizes and key as one text, which takes a third of the memory of its parts."""
_MISSING = -1  # size of a file that does not exist
_REMOVED = " "  # entry of a result that a process removed whose part of the record cannot be rewritten


class Record:
    """The finished results of one folder, by image id.

    Each entry keeps a key, which is a fingerprint of the content of everything that the result was made from, and the
    sizes of the result's files. A result is finished if the key of its present inputs equals the recorded key and all
    its files are there with the recorded sizes. Modification times play no part, so a folder that was copied or
    downloaded again keeps its finished results, and a changed input is noticed however old its file seems.

    The file holds one JSON object per line: the settings first, then one line per finished result; a later line about
    the same image replaces an earlier one. Adding a result appends one line, so the cost does not depend on the number
    of results. A line that was cut off by a kill is ignored: its result counts as unfinished.

    If the work is shared by several processes (see `Share`), each of them appends to a file of its own beside the
    record, `record.part-*.jsonl`, since appended lines of several machines would get lost on network drives. All
    processes read all parts. `end` of a launch, or `begin` of a process alone, joins them to the record.

    Args:
        path: the record file, which need not exist yet.

    Raises:
        PPLValueError: if the file is not a record.

    Example:
        >>> import tempfile
        >>> folder = tempfile.TemporaryDirectory()
        >>> mask = Path(folder.name) / "cat.png"
        >>> _ = mask.write_bytes(b"the mask")
        >>> record = Record(mask.with_name("record.jsonl"))
        >>> record.add("cat", "key of the image and the settings", mask)
        >>> Record(record.path).is_finished("cat", "key of the image and the settings", mask)
        True
        >>> record.is_finished("cat", "key of another image", mask)
        False
        >>> folder.cleanup()
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._lock = threading.Lock()
        self._share = current_share()
        self._settings: dict[str, Any] | None = None
        self._entries: dict[str, _Entry] = {}
        self._file: Path | None = None
        self._load()

    @property
    def settings(self) -> dict[str, Any] | None:
        """The settings that all results were made with, as given to `begin`; None if there are none."""
        return self._settings

    @property
    def has_parts(self) -> bool:
        """Whether parts of several processes wait to be joined."""
        return bool(self._parts())

    def begin(self, settings: Mapping[str, Any]) -> None:
        """Write the settings of the results. If they differ from the recorded ones, remove all entries.

        All processes of a launch make this call.

        Args:
            settings: a mapping that `json` can write.

        Raises:
            FileWriteError: if the file cannot be written.
        """
        new = json.loads(json.dumps(settings))
        self._share.wait()  # until all have read the record
        if self._share.is_first:
            with self._alone():
                self._load()
                differs = new != self._settings
                if differs:
                    self._settings, self._entries = new, {}
                if differs or (self.has_parts and not self._share.is_shard):
                    self._rewrite()
        self._share.wait()
        self._load()

    def end(self) -> None:
        """Join the parts of all processes of a launch, once all of them have made this call."""
        self._share.wait()
        if self._share.writes_totals and self.has_parts:
            self._load()
            self._rewrite()
        self._share.wait()
        self._load()

    def is_finished(self, image_id: str, key: str, *files: Path) -> bool:
        """Return whether the result of an image is there and was made from inputs of this key.

        Args:
            image_id: the image id.
            key: fingerprint of the present inputs.
            *files: the files of the result, in the order of `add`.
        """
        sizes = _sizes(files)
        return _MISSING not in sizes and self._entries.get(image_id) == _entry(key, sizes)

    def __contains__(self, image_id: object) -> bool:
        """Return whether there is an entry for an image, whatever its key."""
        return image_id in self._entries

    def __iter__(self) -> Iterator[str]:
        """Return the image ids that have an entry."""
        return iter(self._entries)

    def __len__(self) -> int:
        """Return the number of images that have an entry."""
        return len(self._entries)

    def add(self, image_id: str, key: str, *files: Path) -> None:
        """Record a result as finished. Threads may call this at the same time.

        Args:
            image_id: the image id.
            key: fingerprint of the inputs, taken before they were read.
            *files: the files of the result, which must exist.

        Raises:
            FileWriteError: if the file cannot be written.
        """
        entry = _entry(key, _sizes(files))
        with self._lock:
            self._entries[image_id] = entry
            self._append(_line(image_id, entry))

    def remove(self, image_ids: Iterable[str]) -> None:
        """Remove the entries of images, before their results are removed or made again.

        Args:
            image_ids: the image ids; those without an entry are skipped.

        Raises:
            FileWriteError: if the file cannot be written.
        """
        with self._lock:
            found = [image_id for image_id in image_ids if self._entries.pop(image_id, None) is not None]
            if found and self._is_shared:
                self._append(*(_line(image_id, _REMOVED) for image_id in found))
            elif found:
                self._rewrite()

    @property
    def _is_shared(self) -> bool:
        return self._share.is_shard or self._share.count > 1

    def _alone(self) -> AbstractContextManager[Any]:
        """Return a lock among the shards of an array job, which do not wait for each other otherwise."""
        if not self._share.is_shard:
            return nullcontext()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        return FileLock(self.path.with_name(f".{self.path.stem}.lock"))

    def _parts(self) -> list[Path]:
        """Return the parts, later ones last."""
        return sorted(self.path.parent.glob(f"{self.path.stem}.part-*{self.path.suffix}"))

    def _load(self) -> None:
        """Read the record and its parts. A part of other settings is a remnant of a kill."""
        self._file = None if self._is_shared else self.path
        self._settings, self._entries = _read(self.path)
        for part in self._parts():
            settings, entries = _read(part)
            if settings == self._settings:
                self._entries |= entries
        self._entries = {image_id: entry for image_id, entry in self._entries.items() if entry != _REMOVED}

    def _append(self, *lines: str) -> None:
        file = self._file = self._file or self._new_part()
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            with file.open("a", encoding="utf-8") as handle:
                if file != self.path and not handle.tell():
                    lines = (*self._head(), *lines)
                # A leading newline ends a line that a killed process may have left unfinished.
                handle.write(("\n" if handle.tell() else "") + "\n".join(lines))
        except OSError as error:
            raise FileWriteError(f"cannot write {file}: {error.strerror or error}") from error

    def _new_part(self) -> Path:
        """Return the path of a new part, behind all parts that are there."""
        numbers = [int(part.name.removeprefix(f"{self.path.stem}.part-").split("-")[0]) for part in self._parts()]
        number, share = 1 + max(numbers, default=0), self._share
        name = f"{self.path.stem}.part-{number:06}-{share.index + 1}-of-{share.count}{self.path.suffix}"
        return self.path.with_name(name)

    def _head(self) -> list[str]:
        return [] if self._settings is None else [json.dumps({"settings": self._settings}, ensure_ascii=False)]

    def _rewrite(self) -> None:
        """Write the record anew, and remove the parts, whose entries it has."""
        lines = [*self._head(), *(_line(image_id, entry) for image_id, entry in self._entries.items())]
        with atomic_write(self.path, "w") as file:
            file.write("\n".join(lines))
        for part in self._parts():
            part.unlink()


def _sizes(files: Iterable[Path]) -> list[int]:
    """Return the size of each file in bytes."""
    return [file.stat().st_size if file.is_file() else _MISSING for file in files]


def _entry(key: str, sizes: Iterable[int]) -> _Entry:
    return f"{','.join(map(str, sizes))} {key}"


def _line(image_id: str, entry: _Entry) -> str:
    sizes, _, key = entry.partition(" ")
    numbers = [int(size) for size in sizes.split(",") if size]
    return json.dumps({"id": image_id, "key": key, "bytes": numbers}, ensure_ascii=False)


def _read(path: Path) -> tuple[dict[str, Any] | None, dict[str, _Entry]]:
    """Read the settings and the entries of a record file."""
    settings: dict[str, Any] | None = None
    entries: dict[str, _Entry] = {}
    if not path.exists():
        return settings, entries
    with path.open(encoding="utf-8", errors="replace", newline="\n") as file:
        for text in file:
            try:
                line = json.loads(text)
            except ValueError:  # an empty line, or a line that was cut off
                continue
            if isinstance(line, dict) and isinstance(line.get("settings"), dict):
                settings = line["settings"]
            elif isinstance(line, dict) and {"id", "key", "bytes"} <= line.keys():
                entries[str(line["id"])] = _entry(str(line["key"]), line["bytes"])
            else:
                what = text.rstrip("\n")
                raise PPLValueError(f"{path} is not a record of finished work, it holds {what!r:.60}: remove the file")
    return settings, entries
