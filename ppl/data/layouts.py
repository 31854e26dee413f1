"""One door to all layouts."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from ppl.data.coco import read_coco
from ppl.data.dataset import TaggedImages
from ppl.data.folder import read_folder
from ppl.data.voc import find_voc, read_voc
from ppl.errors import PPLFileNotFoundError, PPLValueError

__all__ = ["Layout", "open_dataset"]

Layout = Literal["auto", "folder", "voc", "coco"]


def open_dataset(
    root: str | os.PathLike[str],
    split: str | None = None,
    layout: Layout = "auto",
    *,
    missing: Literal["error", "keep"] = "error",
) -> TaggedImages:
    """Read a data set in whichever of the known layouts it lies.

    Args:
        root: its folder.
        split: which part; see `read_folder`, `read_voc`, `read_coco`. None reads all there is.
        layout: "folder", "voc", "coco", or "auto" to look for `labels.csv`, `annotations/instances_*.json` and
            `JPEGImages`, in this order.
        missing: "error" or "keep": whether an image that is not there stops the reading or is left to `check_images`.

    Raises:
        PPLFileNotFoundError: if `root` is not a folder or no layout is recognised.
        PPLValueError: if `layout` is none of the four.

    Example:
        >>> open_dataset("/nowhere")
        Traceback (most recent call last):
        ...
        ppl.errors.PPLFileNotFoundError: /nowhere is not a folder; check the path
    """
    root = Path(root)
    if not root.is_dir():
        raise PPLFileNotFoundError(f"{root} is not a folder; check the path")
    if layout == "auto":
        layout = _recognise(root)
    if layout == "folder":
        return read_folder(root, split, missing=missing)
    if layout == "voc":
        return read_voc(root, split, missing=missing)
    if layout == "coco":
        return read_coco(root, split, missing=missing)
    raise PPLValueError(f'layout {layout!r} is not known; use "auto", "folder", "voc" or "coco"')


def _recognise(root: Path) -> Layout:
    if (root / "labels.csv").is_file():
        return "folder"
    if any(root.glob("annotations/instances_*.json")):
        return "coco"
    if find_voc(root) is not None:
        return "voc"
    there = ", ".join(sorted(path.name for path in root.iterdir())[:8]) or "nothing"
    wanted = "labels.csv (folder), annotations/instances_*.json (coco) or JPEGImages (voc)"
    raise PPLFileNotFoundError(f"{root} is in no known layout: it needs {wanted} but holds {there}")
