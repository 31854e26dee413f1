"""A run is a folder: where each thing in it lies, and the manifest that says how it was made."""

from __future__ import annotations

import json
import platform
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from time import monotonic, time
from typing import Any

from ppl.errors import PPLValueError
from ppl.io import FileWriteError, atomic_write
from ppl.io.files import is_temporary
from ppl.io.fingerprint import fingerprint

__all__ = ["RunFolder"]

_OF_SPLITS = ("scores", "per_image", "per_class", "thresholds", "not_refined", "refinement_scores")
"""Sections of the manifest that have an entry for each split."""
_ABANDONED = 3600  # seconds; the largest file is written in minutes
_PACKAGES = ("ppl-wsss", "torch", "timm", "numpy", "scikit-image", "numba", "pydensecrf2")


@dataclass(frozen=True)
class RunFolder:
    """The layout of one run.

    Example:
        >>> RunFolder(Path("runs/clothing")).cams("val").as_posix()
        'runs/clothing/cams/val'
    """

    path: Path

    @property
    def recipe(self) -> Path:
        """The recipe as it was resolved."""
        return self.path / "recipe.yaml"

    @property
    def manifest(self) -> Path:
        """Versions, seeds, weights' hash, thresholds and where they were chosen, files that were left out."""
        return self.path / "manifest.json"

    @property
    def metrics(self) -> Path:
        """One line of JSON per epoch."""
        return self.path / "metrics.jsonl"

    @property
    def report(self) -> Path:
        """The page that shows it all."""
        return self.path / "report.html"

    @property
    def image_grid(self) -> Path:
        """Images, maps and masks in one picture."""
        return self.path / "image_grid.png"

    def weights(self, which: str) -> Path:
        """The checkpoint "best" or "last"."""
        return self.path / f"{which}.safetensors"

    def cams(self, split: str) -> Path:
        """`.npz` maps of a split."""
        return self.path / "cams" / split

    def masks(self, split: str) -> Path:
        """Palette PNGs cut from the maps alone."""
        return self.path / "masks" / split

    def refined(self, split: str) -> Path:
        """Palette PNGs after refinement."""
        return self.path / "refined" / split

    @property
    def affinity(self) -> Path:
        """The affinity network that random walks go on, where one is learned."""
        return self.path / "affinity" / "affinity.safetensors"

    def comparison(self, mode: str) -> RunFolder:
        """The run of another mode that this one is compared with: a run folder of its own."""
        return RunFolder(self.path / "compare" / mode)

    def read_manifest(self) -> dict[str, Any]:
        """The manifest; an empty dict where there is none yet.

        Raises:
            PPLValueError: if the file is not JSON.
        """
        if not self.manifest.exists():
            return {}
        try:
            content: dict[str, Any] = dict(json.loads(self.manifest.read_text(encoding="utf-8")))
        except (ValueError, TypeError) as error:
            raise PPLValueError(f"{self.manifest} is no manifest ({error}); delete it to begin this run anew") from None
        return content

    def record(self, **sections: Any) -> None:
        """Merge sections into the manifest (one level deep) and write it whole."""
        manifest = {"versions": _versions()} | self.read_manifest()
        for name, value in sections.items():
            known = manifest.get(name)
            manifest[name] = {**known, **value} if isinstance(known, dict) and isinstance(value, dict) else value
        self._write(manifest)

    def _write(self, manifest: dict[str, Any]) -> None:
        self.make()
        with atomic_write(self.manifest, "w") as file:
            json.dump(manifest, file, indent=2, default=str)
            file.write("\n")

    def make(self) -> None:
        """Make the folder itself, if it is missing.

        Raises:
            FileWriteError: if there can be no folder at that place.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise FileWriteError(f"no run folder can be made at {self.path}: {error}; choose another --out") from None

    def sweep(self) -> None:
        """Remove what killed processes left of files that they were writing; what is young may be another one's."""
        for path in self.path.rglob(".*.tmp"):
            with suppress(FileNotFoundError):  # another process has just finished it
                if is_temporary(path) and path.is_file() and time() - path.stat().st_mtime > _ABANDONED:
                    path.unlink()

    def begin(self, step: str, inputs: Any, outputs: Path) -> bool:
        """Prepare to do, or to continue, a step.

        What was made from other inputs is removed: a mask of yesterday's weights among today's is a silent error.

        Args:
            step: its name in the manifest.
            inputs: all that its outputs depend on; anything that `json` can write.
            outputs: the folder that it fills.

        Returns:
            Whether outputs of other inputs were removed.
        """
        stamp = fingerprint(inputs)
        known = self.read_manifest().get("steps", {}).get(step, {})
        same = known.get("fingerprint") == stamp
        stale = outputs.exists() and not same
        if stale:
            shutil.rmtree(outputs)
            self.forget_scores(step.partition("/")[2])
        outputs.mkdir(parents=True, exist_ok=True)
        self.record(steps={step: {**(known if same else {}), "fingerprint": stamp, "finished": False}})
        return stale

    def is_current(self, step: str, inputs: Any) -> bool:
        """Whether a step was finished, and from these very inputs."""
        known = self.read_manifest().get("steps", {}).get(step, {})
        return bool(known.get("finished")) and known.get("fingerprint") == fingerprint(inputs)

    def reopen(self, *steps: str) -> None:
        """Some results of finished steps are to be made again, and scores of the old ones do not hold."""
        known = self.read_manifest().get("steps", {})
        self.record(steps={step: known[step] | {"finished": False} for step in steps if step in known})
        for step in steps:
            self.forget_scores(step.partition("/")[2])

    def forget_scores(self, split: str) -> None:
        """Take the scores of a split out of the manifest."""
        manifest = self.read_manifest()
        if any(split in manifest.get(section, {}) for section in _OF_SPLITS):
            for section in _OF_SPLITS:
                manifest.get(section, {}).pop(split, None)
            self._write(manifest)

    def keep_splits(self, splits: Iterable[str]) -> None:
        """Forget the scores of splits that the run no longer makes masks of: its settings may have changed since."""
        manifest = self.read_manifest()
        for section in _OF_SPLITS:
            manifest[section] = {name: value for name, value in manifest.get(section, {}).items() if name in splits}
        self._write(manifest)

    def stamp(self, step: str) -> str:
        """The fingerprint of what a step was made from.

        Raises:
            PPLValueError: if the step has not been done.
        """
        try:
            return str(self.read_manifest()["steps"][step]["fingerprint"])
        except KeyError:
            raise PPLValueError(f"{self.path} has no {step} yet; run `ppl cam` or `ppl run` first") from None

    @contextmanager
    def finishing(self, step: str, **facts: Any) -> Iterator[dict[str, Any]]:
        """Time a step, and mark it finished in the manifest if it ends well; the block may add facts."""
        start = monotonic()
        yield facts
        known = self.read_manifest().get("steps", {}).get(step, {})
        seconds = round(known.get("seconds", 0.0) + monotonic() - start, 2)
        self.record(steps={step: known | facts | {"finished": True, "seconds": seconds}})


def _versions() -> dict[str, str]:
    known = {"python": platform.python_version(), "platform": platform.platform()}
    found = {package: _version(package) for package in _PACKAGES}
    return known | {package: number for package, number in found.items() if number is not None}


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
