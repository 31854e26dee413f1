"""Tables of a run, made of the manifests of its models."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from ppl.errors import PPLValueError
from ppl.io.listing import counted
from ppl.report.parts import Table

__all__ = ["class_tables", "faithfulness_tables", "image_tables", "score_tables", "section", "splits_of", "step_table"]

Manifests = Mapping[str, Mapping[str, Any]]
"""Manifest by name of the model."""

_SCORES = (
    "mIoU: overlap of made and true masks (intersection over union), averaged over the classes and the background; 100 "
    "is perfect. CAM best: at a threshold chosen on these very masks, so it is no result."
)
_FAITHFULNESS = (
    "Does the CAM show what the classifier looks at? Deletion: its probability of the tag while the picture is painted "
    "over, the highest CAM values first; low is good. Insertion: the same while the picture is uncovered from a blur, "
    "in the same order; high is good. A useful CAM beats the middle of the picture, which needs no CAM."
)
_LOCATED = (
    "Peak and energy: how often the largest CAM value, and which share of all values, lies in the true mask of the "
    "tag; high is good."
)


def section(manifest: Mapping[str, Any], name: str) -> dict[str, dict[str, Any]]:
    """Return a section of a manifest by split; a section that is missing or null is empty."""
    found = manifest.get(name) or {}
    try:
        return {split: dict(values or {}) for split, values in found.items()}
    except (AttributeError, TypeError, ValueError) as error:
        raise PPLValueError(f"manifest.json holds {name} = {found!r:.60}; expected split -> name -> share") from error


def splits_of(manifests: Manifests, name: str) -> list[str]:
    """Return the splits that a section of any manifest has."""
    return list(dict.fromkeys(split for manifest in manifests.values() for split in section(manifest, name)))


def score_tables(manifests: Manifests) -> list[Table]:
    """Return the scores of all models, one table per split."""
    tables = []
    for split in splits_of(manifests, "scores"):
        scores = {arm: section(manifest, "scores").get(split, {}) for arm, manifest in manifests.items()}
        names = list(dict.fromkeys(name for row in scores.values() for name in row))
        rows = [[arm, *(row.get(name) for name in names)] for arm, row in scores.items()]
        tables.append(Table(f"Scores on {split}, %", ["model", *names], rows, _SCORES))
    return tables


def class_tables(manifests: Manifests) -> list[Table]:
    """Return the IoU of every class by model and kind of mask, one table per split."""
    tables = []
    for split in splits_of(manifests, "per_class"):
        columns = {
            f"{arm}, {kind}" if len(manifests) > 1 else kind: dict(values or {})
            for arm, manifest in manifests.items()
            for kind, values in section(manifest, "per_class").get(split, {}).items()
        }
        classes = list(dict.fromkeys(name for column in columns.values() for name in column))
        rows = [[name, *(column.get(name) for column in columns.values())] for name in classes]
        note = "From the CAM to the refined mask to the segmentation network; bold: the best of a class."
        tables.append(Table(f"IoU per class on {split}, %", ["class", *columns], rows, note, compare="row"))
    return tables


def image_tables(manifest: Mapping[str, Any], count: int = 5) -> list[Table]:
    """Return the best and the worst images of one model, one table per split."""
    tables = []
    for split, scores in section(manifest, "per_image").items():
        known = {name: value for name, value in scores.items() if isinstance(value, float) and not math.isnan(value)}
        ranked = sorted(known.items(), key=lambda item: -item[1])
        rows = [[name, value, place] for place, (name, value) in enumerate(ranked, start=1)]
        rows = rows if len(rows) <= 2 * count else [*rows[:count], *rows[-count:]]
        note = f"Mean IoU of an image over its classes, refined masks if there are any; rank among {len(known)} images."
        title = f"Best and worst images of {split}, IoU in %"
        tables.append(Table(title, ["image", "IoU", "rank"], rows, note, compare=None))
    return tables


def faithfulness_tables(manifests: Manifests) -> list[Table]:
    """Return deletion, insertion, pointing game and energy of all models, one table per split."""
    tables = []
    for split in splits_of(manifests, "faithfulness"):
        found = {arm: section(manifest, "faithfulness").get(split, {}) for arm, manifest in manifests.items()}
        rows = [
            [_of(arm, name, manifests), *(values.get(column) for column in ("deletion", "insertion", "peak", "energy"))]
            for arm, entry in found.items()
            for name, values in (entry.get("scores") or {}).items()
        ]
        columns = ["map", "deletion (low is good)", "insertion (high is good)", "peak in mask", "energy in mask"]
        sample = [f"{counted(e['maps'], 'CAM')} of {counted(e['images'], 'image')}" for e in found.values() if e]
        note = f"{_FAITHFULNESS} Over {' and '.join(dict.fromkeys(sample))}."
        if any(row[3] is not None for row in rows):
            note = f"{note} {_LOCATED}"
        else:
            rows, columns = [row[:3] for row in rows], columns[:3]
        tables.append(Table(f"Faithfulness on {split}, %", columns, rows, note, compare=None))
    return tables


def step_table(manifests: Manifests) -> list[Table]:
    """Return the seconds of each step, if the manifests record steps."""
    rows = [
        [_of(arm, name, manifests), round(step.get("seconds") or 0), "yes" if step.get("finished") else "no"]
        for arm, manifest in manifests.items()
        for name, step in section(manifest, "steps").items()
    ]
    return [Table("Steps", ["step", "seconds", "finished"], rows)] if rows else []


def _of(model: str, name: str, manifests: Manifests) -> str:
    """Return a name with its model in front, if there are several models."""
    return f"{model}: {name}" if len(manifests) > 1 else name
