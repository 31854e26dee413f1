"""A run folder: the paths of its files, and the manifest, which tells how they were made."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, time
from typing import Any

from ppl.errors import PPLValueError
from ppl.io import FileWriteError, atomic_write
from ppl.io.files import is_temporary
from ppl.io.versions import versions
from ppl.parallel import current_share
from ppl.parallel.lock import command_lock, folder_lock

__all__ = ["RunFolder"]

_SCORES_BY_MASKS = ("scores", "scored", "per_image", "per_class", "thresholds", "refinement_scores")
"""Sections of the manifest that compare with true masks; one entry per split."""
_SECTIONS_BY_SPLIT = (*_SCORES_BY_MASKS, "faithfulness", "not_refined")
"""Sections of the manifest that hold one entry per split."""
_ABANDONED = 3600
"""Age in seconds after which a temporary file is taken for the remains of a killed process."""


@dataclass(frozen=True)
class RunFolder:
    """The paths of a run and its manifest.

    Args:
        path: the folder, which need not exist yet.

    Example:
        >>> RunFolder(Path("runs/clothing")).cams("val").as_posix()
        'runs/clothing/cams/val'
    """

    path: Path

    @property
    def recipe(self) -> Path:
        """The recipe with every key filled in."""
        return self.path / "recipe.yaml"

    @property
    def manifest(self) -> Path:
        """Versions, seed, hash of the weights, scores, thresholds and the images that were left out."""
        return self.path / "manifest.json"

    @property
    def metrics(self) -> Path:
        """The training curve: one JSON object per line and epoch."""
        return self.path / "metrics.jsonl"

    @property
    def report(self) -> Path:
        """The HTML page with curves, scores and pictures."""
        return self.path / "report.html"

    @property
    def image_grid(self) -> Path:
        """The picture with images, true masks, CAMs and refined masks side by side."""
        return self.path / "image_grid.png"

    def weights(self, which: str) -> Path:
        """Return the path of the "best" or the "last" checkpoint."""
        return self.path / f"{which}.safetensors"

    def cams(self, split: str) -> Path:
        """Return the folder of a split's CAM files (`.npz`)."""
        return self.path / "cams" / split

    def masks(self, split: str) -> Path:
        """Return the folder of the masks (palette PNG) that the background rule cuts from the CAMs."""
        return self.path / "masks" / split

    def refined(self, split: str) -> Path:
        """Return the folder of the refined masks (palette PNG)."""
        return self.path / "refined" / split

    @property
    def segmenter(self) -> Path:
        """The segmentation network, if the recipe trains one."""
        return self.path / "segmenter" / "last.safetensors"

    def segmented(self, split: str) -> Path:
        """Return the folder of the segmentation network's predictions (palette PNG)."""
        return self.path / "segmented" / split

    @property
    def affinity(self) -> Path:
        """The affinity network, if the recipe learns one."""
        return self.path / "affinity" / "affinity.safetensors"

    @property
    def pixels(self) -> Path:
        """The pixel classifier, if a refiner of the recipe needs one."""
        return self.path / "pixels" / "pixels.safetensors"

    def comparison(self, mode: str) -> RunFolder:
        """Return the run folder of another mode that this run is compared with."""
        return RunFolder(self.path / "compare" / mode)

    @property
    def exists(self) -> bool:
        """Whether a run has begun here. A data set may hold a recipe too, but no manifest and no training curve."""
        return self.manifest.exists() or self.metrics.exists()

    def make(self) -> None:
        """Create the folder if it is missing.

        Raises:
            FileWriteError: if the path cannot be a folder.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise FileWriteError(f"no run folder can be made at {self.path}: {error}; choose another --out") from None

    def lock(self, job: str) -> AbstractContextManager[None]:
        """Return the lock that every command holds while it writes into the run; see `ppl.parallel.lock.command_lock`.

        The comparisons of a run share its lock.

        Args:
            job: fingerprint of what the command does.

        Raises:
            FolderInUseError: on entry, if another process holds the lock.
        """
        return command_lock(self._locked, job)

    @property
    def _locked(self) -> Path:
        parent = self.path.resolve().parent
        is_comparison = parent.name == "compare" and RunFolder(parent.parent).recipe.is_file()
        return parent.parent if is_comparison else self.path

    def remove_abandoned_files(self) -> None:
        """Remove temporary files that killed processes left. Files younger than an hour stay."""
        for path in self.path.rglob(".*.tmp"):
            with suppress(FileNotFoundError):  # a process that is still at work has given the file its name
                if is_temporary(path) and path.is_file() and time() - path.stat().st_mtime > _ABANDONED:
                    path.unlink()

    def read_manifest(self) -> dict[str, Any]:
        """Return the manifest, or an empty dictionary if there is none yet.

        Raises:
            PPLValueError: if the file is not a JSON object.
        """
        if not self.manifest.exists():
            return {}
        try:
            content: dict[str, Any] = dict(json.loads(self.manifest.read_text(encoding="utf-8")))
        except (ValueError, TypeError) as error:
            raise PPLValueError(f"{self.manifest} is no manifest ({error}); delete it to begin this run anew") from None
        return content

    def record(self, **sections: Any) -> None:
        """Write sections into the manifest. The keys of a mapping join those that its section has already.

        Args:
            **sections: section by name.

        Raises:
            FolderInUseError: if another process holds the lock of the run.
        """
        with self._changing_manifest() as manifest:
            for name, value in sections.items():
                known = manifest.get(name)
                manifest[name] = {**known, **value} if isinstance(known, dict) and isinstance(value, dict) else value

    def remove_scores(self, of: Callable[[str], bool], *, by_masks: bool = False) -> None:
        """Remove the scores of some splits from the manifest.

        Args:
            of: tells whether the scores of a split go.
            by_masks: remove only what compares with true masks.
        """
        with self._changing_manifest() as manifest:
            for section in _SCORES_BY_MASKS if by_masks else _SECTIONS_BY_SPLIT:
                if section in manifest:
                    manifest[section] = {split: entry for split, entry in manifest[section].items() if not of(split)}

    @contextmanager
    def _changing_manifest(self) -> Iterator[dict[str, Any]]:
        """Read the manifest, let the block change it, and write it whole, in the process that writes totals."""
        if not current_share().writes_totals:
            yield {}
            return
        self.make()
        with folder_lock(self._locked):
            manifest = {"versions": versions()} | self.read_manifest()
            yield manifest
            with atomic_write(self.manifest, "w") as file:
                json.dump(manifest, file, indent=2, default=str)
                file.write("\n")

    @contextmanager
    def step(self, name: str, key: str, **facts: Any) -> Iterator[None]:
        """Do a step of the run: the manifest calls the step unfinished until the block has ended without an error.

        A step of a split removes the split's scores, since they are scores of files that the step replaces.

        Args:
            name: name of the step, such as "train" or "cams/val".
            key: fingerprint of all that the step's results depend on. The seconds of several calls with one key add up.
            **facts: further entries of the step's record.
        """
        known = self._step(name)
        seconds = known.get("seconds", 0.0) if known.get("key") == key else 0.0
        _, _, split = name.partition("/")
        if split:
            self.remove_scores(lambda other: other == split)
        self.record(steps={name: {"key": key, "finished": False, "seconds": seconds}})
        start = monotonic()
        yield
        seconds = round(seconds + monotonic() - start, 2)
        self.record(steps={name: {"key": key, "finished": True, "seconds": seconds, **facts}})

    def begin_training(self, step: str, key: str, network: Path, length: Mapping[str, Any] | None = None) -> bool:
        """Return whether a network is to be trained, and remove what was trained from other inputs.

        All processes of a launch make this call and get the same answer.

        Args:
            step: name of the training's step.
            key: fingerprint of all that the network depends on.
            network: file of the network, in a folder of its own.
            length: "epochs", and the fingerprint "besides_epochs" of all other inputs, if a finished network of fewer
                epochs goes on; they are facts of the step.
        """
        known, share = self._step(step), current_share()
        same = known.get("key") == key
        done = same and known["finished"] and network.exists()
        if length is not None and known.get("besides_epochs") == length["besides_epochs"]:  # a finished network
            same = same or known["epochs"] < length["epochs"]
        same, done = share.gather([same, done])[0]
        if not same and share.is_first:  # the network, or its half-trained state
            shutil.rmtree(network.parent, ignore_errors=True)
        share.wait()
        return not done

    def _step(self, name: str) -> dict[str, Any]:
        step: dict[str, Any] = self.read_manifest().get("steps", {}).get(name, {})
        return step
