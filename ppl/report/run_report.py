"""The report of a run folder, made of the files in the folder."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ppl.errors import PPLFileNotFoundError, PPLValueError
from ppl.report.curves import curves, read_history
from ppl.report.html_report import Part, Report
from ppl.report.parts import Gallery, Picture, Table
from ppl.report.run_tables import (
    Manifests,
    class_tables,
    faithfulness_tables,
    image_tables,
    score_tables,
    section,
    splits_of,
    step_table,
)

__all__ = ["read_run"]

_MOST_CLASSES = 50
"""Classes of a confusion matrix that is shown whole; of a larger one, the largest confusions are listed."""
_UNSCORED = (
    "No image that masks were made of has a true mask, so there are no scores: judge by the pictures, the validation "
    "mAP of the tags and the faithfulness of the CAMs."
)


def read_run(
    run: str | os.PathLike[str], models: Collection[str] | None = None, galleries: Sequence[Gallery] | None = None
) -> Report:
    """Make a report of the files in a run folder.

    All files are optional: `manifest.json` with the sections `scores` (split -> name -> share), `per_class` (split ->
    kind -> class -> IoU), `per_image` (split -> name -> IoU; the best and the worst are shown), `faithfulness`, `notes`
    and `mode`; `metrics.jsonl`; `thresholds_<split>.csv` and `confusion_<split>.csv` of the scored splits; and the same
    files of other models in `compare/<name>/`.

    Args:
        run: the folder.
        models: names of the models in `compare/` to show beside the run's own model; None: all.
        galleries: pictures to show after the scores; None: `image_grid.png` of the folder, if it is there.

    Returns:
        The report.

    Raises:
        PPLFileNotFoundError: if the folder is missing.
        PPLValueError: if a file of the folder is damaged.
    """
    run = Path(run)
    if not run.is_dir():
        raise PPLFileNotFoundError(f"{run} is not a folder; give a run folder")
    own, folder = _manifest(run), run.resolve().name  # resolved, since "." has no name
    name = str(own.get("mode") or folder)
    arms = {path.name: path for path in sorted(run.glob("compare/*")) if path.is_dir()}
    arms = {arm: path for arm, path in arms.items() if models is None or arm in models} | {name: run}
    manifests = {arm: _manifest(path) for arm, path in arms.items()}
    report = Report(title=folder, summary=_summary(own), manifest=own, notes=list(map(str, own.get("notes") or [])))
    scores = score_tables(manifests)
    if own.get("steps") and not scores:
        report.notes.append(_UNSCORED)
    grid: list[Part] = [Picture("Pictures", run / "image_grid.png")] if (run / "image_grid.png").is_file() else []
    report.parts = [
        *scores,
        *(grid if galleries is None else galleries),
        *class_tables(manifests),
        *image_tables(own),
        *faithfulness_tables(manifests),
        *_threshold_charts(arms, manifests),
        *_confusion_tables(run, own),
        *_training_charts(arms),
        *step_table(manifests),
    ]
    return report


def _manifest(run: Path) -> dict[str, Any]:
    path = run / "manifest.json"
    if not path.is_file():
        return {}
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise PPLValueError(f"{path} is not JSON ({error}); run the step that writes it again") from error


def _summary(manifest: Mapping[str, Any]) -> str:
    data = manifest.get("data") or {}
    images = ", ".join(f"{split} {count}" for split, count in (data.get("images") or {}).items())
    counts = {
        "images": images,
        "unusable images": len(data.get("left_out") or ()),
        "classes": len(manifest.get("classes") or ()),
    }
    return "; ".join(f"{name}: {count}" for name, count in counts.items() if count)


def _threshold_charts(arms: Mapping[str, Path], manifests: Manifests) -> list[Picture]:
    charts = []
    for split in splits_of(manifests, "thresholds"):
        files = {arm: path / f"thresholds_{split}.csv" for arm, path in arms.items()}
        runs = {
            arm: [dict(zip(("threshold", "miou"), numbers, strict=False)) for _, numbers in _csv_rows(path)]
            for arm, path in files.items()
            if path.is_file()
        }
        best = {arm: section(m, "thresholds").get(split, {}).get("best") for arm, m in manifests.items()}
        chosen = ", ".join(f"{arm} {value:g}" for arm, value in best.items() if isinstance(value, float))
        caption = (
            f"mIoU of masks that are cut from the CAMs of {split} at a constant background threshold. "
            f"Best, chosen on these masks: {chosen}."
        )
        charts += _chart(f"Threshold curve of {split}", caption, runs, keys=("miou",), x="threshold")
    return charts


def _training_charts(arms: Mapping[str, Path]) -> list[Picture]:
    files = {arm: path / "metrics.jsonl" for arm, path in arms.items()}
    runs = {arm: read_history(path) for arm, path in files.items() if path.is_file()}
    return _chart("Training", "By epoch. A dotted line marks the first epoch of a new phase.", runs)


def _chart(title: str, caption: str, runs: Mapping[str, list[dict[str, Any]]], **options: Any) -> list[Picture]:
    try:
        return [Picture(title, curves({name: run for name, run in runs.items() if run}, **options), caption)]
    except PPLValueError:  # there is no number to draw
        return []


def _csv_rows(path: Path, names: int = 0) -> Iterator[tuple[list[str], list[float]]]:
    """Yield the names and the numbers of each row of a CSV file that has a heading."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = csv.reader(file)
        next(rows, None)
        try:
            for row in rows:
                yield row[:names], [float(cell) for cell in row[names:]]
        except (ValueError, csv.Error) as error:
            raise PPLValueError(f"{path} is damaged ({error}); run `ppl evaluate` again") from error


def _confusion_tables(run: Path, manifest: Mapping[str, Any]) -> list[Table]:
    """Return the confusion matrix of the last kind of mask of each scored split."""
    tables = []
    for split in section(manifest, "scores"):
        path = run / f"confusion_{split}.csv"
        rows = list(_csv_rows(path, names=2)) if path.is_file() else []
        kind = rows[-1][0][0] if rows else ""
        counts = {name: values for (label, name), values in rows if label == kind}
        names = list(counts)
        of = f"of {split}, {kind}"
        if 0 < len(names) <= _MOST_CLASSES:
            shares = [[name, *_shares(values)] for name, values in counts.items()]
            note = "A row shows into which classes the pixels of a true class went; those on the diagonal are right."
            columns = ["true class", *names, "ignored"]
            tables.append(Table(f"Confusion matrix {of}, %", columns, shares, note, compare=None, heat=True))
        elif names:
            tables.append(Table(f"Largest confusions {of}, %", ["true class", "taken for", "share"], _largest(counts)))
    return tables


def _shares(counts: Sequence[float]) -> list[float | None]:
    return [count / sum(counts) if sum(counts) else None for count in counts]


def _largest(counts: Mapping[str, Sequence[float]], most: int = 30) -> list[list[Any]]:
    """Return the pairs of classes with the most confused pixels, and the share of the true class."""
    pairs = [
        (count, [name, other, count / sum(row)])
        for name, row in counts.items()
        for other, count in zip(counts, row, strict=False)  # the last column is of ignored pixels
        if other != name and count
    ]
    return [pair for _, pair in sorted(pairs, key=lambda item: -item[0])[:most]]
