"""Write a data set of Hugging Face `datasets` as a folder that `open_dataset` reads."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ppl.errors import PPLValueError, nearest
from ppl.extras import require
from ppl.io import atomic_folder, write_mask

__all__ = ["import_huggingface"]

_PER_FOLDER = 10_000
"""Images in one folder: folders of millions of files are slow on many file systems."""


def import_huggingface(
    source: Any,
    root: str | os.PathLike[str],
    *,
    image: str | None = None,
    labels: str | None = None,
    mask: str | None = None,
) -> Path:
    """Write a data set of the package `datasets` in the layout of `read_folder`.

    Image files are copied byte by byte. The extra `datasets` installs the package:
    `pip install "ppl-wsss[datasets]"`.

    Args:
        source: a `datasets.Dataset`, a `DatasetDict` of splits, or the name of a data set for `load_dataset`.
        root: folder to make; it must not exist yet, or be empty.
        image: column of images; None takes the first one.
        labels: column with a `ClassLabel` or a list of them, "objects.category" for a column inside another; None
            takes the first one.
        mask: column of masks whose pixels are 0 for the background and class index + 1, if there is one.

    Returns:
        `root`, which now holds `images`, `labels.csv`, `classes.txt`, a list per split, and `masks` if `mask` is given.
        Images are named after their split and row: `train_000012`; of splits with more than 10,000 rows, in folders of
        10,000 images: `train_0001/train_012345`.

    Raises:
        MissingExtraError: if `datasets` is not installed.
        PPLValueError: if a column is missing or is of another type, or a class name holds a ";".
        FileWriteError: if `root` holds something or cannot be written.
    """
    datasets = require("datasets", extra="datasets")
    if isinstance(source, (str, os.PathLike)):
        source = datasets.load_dataset(os.fspath(source))
    splits = dict(source) if isinstance(source, Mapping) else {str(source.split or "train"): source}
    features = next(iter(splits.values())).features
    image = _column(features, image, "image", lambda feature: isinstance(feature, datasets.Image))
    labels = _column(features, labels, "labels", lambda feature: _names(feature) is not None)
    names = _names(_at(features, labels)) or []
    if any(";" in name for name in names):
        raise PPLValueError(f'a class name of {labels!r} holds a ";", which separates tags in labels.csv; rename it')
    with atomic_folder(root) as folder:
        (folder / "images").mkdir()
        (folder / "classes.txt").write_text("".join(f"{name}\n" for name in names), encoding="utf-8")
        with (folder / "labels.csv").open("w", encoding="utf-8", newline="") as handle:
            table = csv.writer(handle)
            table.writerow(["image", "labels"])
            for split, rows in splits.items():
                ids = []
                for number, row in enumerate(rows.cast_column(image, datasets.Image(decode=False))):
                    within = f"{split}_{number // _PER_FOLDER:04d}/" if len(rows) > _PER_FOLDER else ""
                    ids.append(f"{within}{split}_{number:06d}")
                    name = within + _copy(row[image], folder / "images" / ids[-1])
                    found = _at(row, labels)
                    indices = sorted(set(found)) if isinstance(found, list) else [] if found is None else [found]
                    table.writerow([name, ";".join(names[index] for index in indices)])
                    if mask is not None:
                        write_mask(folder / "masks" / f"{ids[-1]}.png", np.array(row[mask]))
                (folder / f"{split}.txt").write_text("".join(f"{name}\n" for name in ids), encoding="utf-8")
    return Path(root)


def _column(features: Mapping[str, Any], given: str | None, purpose: str, fits: Callable[[Any], bool]) -> str:
    """Return the given column if it is of the right type, else the first column that is."""
    columns = {name: feature for name, feature in features.items() if not isinstance(feature, dict)}
    for outer, feature in features.items():
        if isinstance(feature, dict):
            columns |= {f"{outer}.{inner}": content for inner, content in feature.items()}
    fitting = [name for name, feature in columns.items() if fits(feature)]
    if given is None and fitting:
        return fitting[0]
    if given not in fitting:
        there = nearest(given or purpose, fitting) if fitting else f"; the columns are {', '.join(columns)}"
        what = f"no column {given!r} of {purpose}" if given else f"no column of {purpose}"
        raise PPLValueError(f"the data set has {what}{there}")
    return given


def _at(row: Any, column: str) -> Any:
    for part in column.split("."):
        row = row[part]
    return row


def _names(feature: Any) -> list[str] | None:
    """Return the class names of a ClassLabel or of a list of them; None for other features."""
    if isinstance(feature, list):
        feature = feature[0]
    names = getattr(getattr(feature, "feature", feature), "names", None)
    return None if names is None else list(names)


def _copy(image: Mapping[str, Any], path: Path) -> str:
    """Write the bytes of an image with the ending of its format; return the file's name."""
    content = image["bytes"] if image["bytes"] is not None else Path(image["path"]).read_bytes()
    with Image.open(io.BytesIO(content)) as picture:
        path = path.with_name(f"{path.name}.{(picture.format or 'png').lower()}")
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    return path.name
