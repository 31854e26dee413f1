"""Folders with one result file per image: which results are finished, and what is made again."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ppl.io.archives import FilePath
from ppl.io.fingerprint import fingerprint, sha256
from ppl.io.listing import list_files
from ppl.parallel import current_share, parallel_map, tracked
from ppl.parallel.records import Record
from ppl.parallel.run_jobs import RECORD_FILE

__all__ = ["ResultFolder", "hash_files"]


class ResultFolder:
    """A folder with one result file per image id, and the record of the finished results.

    A result is finished if it was made with these settings, from inputs of the same content. Times of files play no
    part, so a run folder that was copied or downloaded again is not done again.

    Each process of a launch, and each shard of an array job, looks after the results of its own images; see `Share`.

    Args:
        path: the folder, which need not exist yet.
        suffix: extension of the results, such as ".npz".
        settings: a mapping that `json` can write: all that every result depends on.
    """

    def __init__(self, path: Path, suffix: str, settings: Mapping[str, Any]) -> None:
        self.path, self.suffix, self.settings = path, suffix, dict(settings)
        self.record = Record(path / RECORD_FILE)

    def file(self, image_id: str) -> Path:
        """Return the path of an image's result."""
        return self.path / f"{image_id}{self.suffix}"

    @property
    def has_same_settings(self) -> bool:
        """Whether the results that are there were made with these settings."""
        return self.record.settings is not None and fingerprint(self.record.settings) == fingerprint(self.settings)

    def files(self) -> Mapping[str, Path]:
        """Return the results that are there by image id, whatever they were made from."""
        if not self.path.is_dir():
            return {}
        files, suffix = list_files(self.path), self.suffix
        return files.renamed((name.removesuffix(suffix), name) for name in files if name.endswith(suffix))

    def unfinished(self, keys: Mapping[str, str]) -> list[str]:
        """Return the image ids whose results are missing or were made from other inputs.

        Args:
            keys: by image id, the fingerprint of the image's own inputs.
        """
        if not self.has_same_settings:
            return list(keys)
        return [id_ for id_, key in keys.items() if not self.record.is_finished(id_, key, self.file(id_))]

    def is_complete(self, keys: Mapping[str, str]) -> bool:
        """Return whether these results are finished and there are no others, in all processes of a launch.

        The answer is no as well if shards have made results since the record was last closed.

        Args:
            keys: by image id, the fingerprint of the image's own inputs, for the images of this process.
        """
        share = current_share()
        whole = len(keys) == sum(map(share.owns, self.record)) and (share.is_shard or not self.record.has_parts)
        return all(share.gather(whole and not self.unfinished(keys)))

    def begin(self, keys: Mapping[str, str], *, redo: bool = False, keep_others: bool = False) -> list[str]:
        """Remove the outdated results and return the image ids whose results are to be made.

        All processes of a launch make this call, and `end` after their results are written.

        Args:
            keys: by image id, the fingerprint of the image's own inputs, for the images of this process.
            redo: make the results of all these images again.
            keep_others: keep the results of other images, if they were made with the same settings.
        """
        todo = list(keys) if redo else self.unfinished(keys)
        keep_others = keep_others and self.has_same_settings
        outdated = set(todo)
        if not keep_others:
            others = filter(current_share().owns, self.files())
            outdated |= {image_id for image_id in others if image_id in self.record and image_id not in keys}
        self.remove(outdated)
        self.record.begin(self.settings)
        return todo

    def remove(self, image_ids: Iterable[str]) -> None:
        """Remove results. They leave the record first, so a kill in between leaves no file that seems finished."""
        image_ids = set(image_ids)
        if not image_ids:
            return
        self.record.remove(image_ids)
        for image_id, path in self.files().items():
            if image_id in image_ids:
                path.unlink()

    def finish(self, image_id: str, key: str) -> None:
        """Record that the result of an image is written."""
        self.record.add(image_id, key, self.file(image_id))

    def end(self) -> None:
        """Close the record, once all processes of a launch have made this call."""
        self.record.end()


def hash_files(
    files: Mapping[str, FilePath], num_workers: int = -1, *, progress: bool = False
) -> dict[str, str | None]:
    """Return the SHA-256 of files by name; None for a file that is missing.

    Args:
        files: path by name.
        num_workers: threads; -1 for one per core.
        progress: show a bar on a terminal.

    Example:
        >>> hash_files({"none": Path("nowhere")}, num_workers=1)
        {'none': None}
    """
    hashes = parallel_map(_hash, list(files.items()), num_workers)
    found = dict(tracked(hashes, "compare files with the record", len(files), show=progress))
    return {name: found[name] for name in files}


def _hash(file: tuple[str, FilePath]) -> tuple[str, str | None]:
    name, path = file
    return name, sha256(path) if path.is_file() else None
