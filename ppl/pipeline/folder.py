"""A run is a folder: where each thing in it lies, and the manifest that says how it was made."""

from __future__ import annotations

import hashlib
import json
import platform
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from time import monotonic
from typing import Any

from ppl.errors import PPLValueError
from ppl.io import atomic_write

__all__ = ["RunFolder", "fingerprint", "sha256"]

_PACKAGES = ("ppl-wsss", "torch", "timm", "numpy", "scikit-image", "llvmlite", "pydensecrf2")


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
    def sheet(self) -> Path:
        """The picture sheet."""
        return self.path / "sheet.png"

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
            content = json.loads(self.manifest.read_text(encoding="utf-8"))
        except json.JSONDecodeError as error:
            raise PPLValueError(f"{self.manifest} is not JSON ({error}); delete it to begin this run anew") from None
        return dict(content)

    def record(self, **sections: Any) -> None:
        """Merge sections into the manifest (one level deep) and write it whole."""
        manifest = {"versions": _versions()} | self.read_manifest()
        for name, value in sections.items():
            known = manifest.get(name)
            manifest[name] = {**known, **value} if isinstance(known, dict) and isinstance(value, dict) else value
        self.path.mkdir(parents=True, exist_ok=True)
        with atomic_write(self.manifest, "w") as file:
            json.dump(manifest, file, indent=2, default=str)
            file.write("\n")

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
        known = self.read_manifest().get("steps", {}).get(step, {}).get("fingerprint")
        stale = outputs.exists() and known != stamp
        if stale:
            shutil.rmtree(outputs)
        outputs.mkdir(parents=True, exist_ok=True)
        self.record(steps={step: {"fingerprint": stamp, "finished": False}})
        return stale

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


def fingerprint(inputs: Any) -> str:
    """A short hash of anything that `json` can write.

    Example:
        >>> fingerprint({"scales": [1.0]}) == fingerprint({"scales": [1.0]})
        True
    """
    text = json.dumps(inputs, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def sha256(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _versions() -> dict[str, str]:
    known = {"python": platform.python_version(), "platform": platform.platform()}
    found = {package: _version(package) for package in _PACKAGES}
    return known | {package: number for package, number in found.items() if number is not None}


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
