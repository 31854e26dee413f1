"""The report of a run: one HTML file that contains its pictures and curves."""

from __future__ import annotations

import base64
import io
import json
import math
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

from PIL import Image

from ppl.errors import PPLFileNotFoundError, PPLValueError
from ppl.io import atomic_write
from ppl.report.curves import curves, read_history
from ppl.report.overlay import as_rgb

__all__ = ["Picture", "Report", "Table", "read_run", "write_report"]


class _Cell(NamedTuple):
    text: str
    best: bool


@dataclass(frozen=True)
class Table:
    """A table of the report.

    Attributes:
        title: heading of the table.
        columns: heading of each column; the first column holds the names of the rows.
        rows: the cells of each row. Floats are shares in 0..1 and are printed in percent, None and NaN as a dash, other
            values as text. Numbers of numpy and torch count as Python's.
        note: a line below the table, such as the split on which a threshold was chosen.
        compare: set the largest float in bold, in each "column" or in each "row"; None: in neither.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]
    note: str = ""
    compare: Literal["column", "row"] | None = "column"

    def __post_init__(self) -> None:
        object.__setattr__(self, "rows", [[_plain(value) for value in row] for row in self.rows])

    def cells(self) -> list[list[_Cell]]:
        """Return the printed text of every cell, row by row."""
        return [[_Cell(_text(v), self._is_best(v, i, row)) for i, v in enumerate(row)] for row in self.rows]

    def is_number(self, column: int) -> bool:
        """Return whether a column holds numbers only, which are aligned to the right."""
        return all(row[column] is None or _is_number(row[column]) for row in self.rows)

    def _is_best(self, value: Any, column: int, row: Sequence[Any]) -> bool:
        rivals = row if self.compare == "row" else [other[column] for other in self.rows]
        numbers = [v for v in rivals if isinstance(v, float) and not math.isnan(v)]
        if self.compare is None or not isinstance(value, float) or len(set(numbers)) < 2:
            return False
        return value == max(numbers)


@dataclass(frozen=True)
class Picture:
    """A picture of the report.

    Attributes:
        title: heading of the picture.
        image: file, PIL image or (H, W, 3) uint8 array.
        caption: text below the picture.
    """

    title: str
    image: Any
    caption: str = ""

    def source(self) -> str:
        """Return the picture as a data URI."""
        if isinstance(self.image, (str, os.PathLike)):
            path = Path(self.image)
            if not path.is_file():
                raise PPLFileNotFoundError(f"{path} is missing; draw the picture {self.title!r} before the report")
            kind = {".jpg": "jpeg", ".jpeg": "jpeg", ".svg": "svg+xml"}.get(
                path.suffix.lower(), path.suffix[1:].lower()
            )
            return f"data:image/{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"
        buffer = io.BytesIO()
        Image.fromarray(as_rgb(self.image)).save(buffer, "PNG")
        return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


@dataclass
class Report:
    """The content of a report; empty parts are left out.

    Attributes:
        title: heading of the report.
        summary: one line below the title.
        notes: remarks on the scores, such as on which masks a threshold was chosen.
        tables: the tables in order, the most important one first.
        history: name of a run -> its epochs (see `read_history`), for the curves.
        pictures: the pictures in order.
        manifest: the settings and versions of the run, printed as JSON.
    """

    title: str
    summary: str = ""
    notes: list[str] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    history: dict[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)
    pictures: list[Picture] = field(default_factory=list)
    manifest: dict[str, Any] = field(default_factory=dict)


def write_report(report: Report, path: str | os.PathLike[str]) -> Path:
    """Write a report as one HTML file that contains the pictures and curves, whole or not at all.

    Args:
        report: the content; `read_run` makes one of a run folder.
        path: the file.

    Returns:
        The path.

    Raises:
        PPLFileNotFoundError: if a picture is missing.
        FileWriteError: if the file cannot be written.

    Example:
        >>> import tempfile
        >>> folder = tempfile.TemporaryDirectory()
        >>> table = Table("Scores", ["model", "CAM mIoU"], [["baseline", 0.41], ["progressive", 0.47]])
        >>> file = write_report(Report("demo", tables=[table]), Path(folder.name) / "report.html")
        >>> "47.0" in file.read_text()
        True
        >>> folder.cleanup()
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    loader = PackageLoader("ppl.report", "templates")
    template = Environment(loader=loader, autoescape=True, undefined=StrictUndefined).get_template("report.html")
    runs = {name: history for name, history in report.history.items() if history}
    try:
        drawing = curves(runs) if runs else ""
    except PPLValueError:  # there is no number to draw: the report has no curves
        drawing = ""
    manifest = json.dumps(report.manifest, indent=2, default=str, ensure_ascii=False) if report.manifest else ""
    with atomic_write(path, "w") as handle:
        handle.write(template.render(report=report, drawing=drawing, manifest=manifest))
    return Path(path)


def read_run(run: str | os.PathLike[str], models: Collection[str] | None = None) -> Report:
    """Make a report of the files in a run folder.

    All files are optional: `manifest.json` with the sections `scores` (split -> name -> share), `per_class` (split ->
    kind -> class -> IoU), `per_image` (split -> name -> IoU; the best and the worst are shown), `notes` and `mode`;
    `metrics.jsonl`; `image_grid.png`; and the same files of other models in `compare/<name>/`.

    Args:
        run: the folder.
        models: names of the models in `compare/` to show beside the run's own model; None: all.

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
    histories = {arm: path / "metrics.jsonl" for arm, path in arms.items()}
    report = Report(title=folder, manifest=own, notes=[str(note) for note in own.get("notes") or []])
    report.history = {arm: read_history(path) for arm, path in histories.items() if path.is_file()}
    report.tables = [*_score_tables(manifests), *_class_tables(manifests), *_image_tables(own)]
    if (run / "image_grid.png").is_file():
        report.pictures.append(Picture("Pictures", run / "image_grid.png"))
    return report


def _manifest(run: Path) -> dict[str, Any]:
    path = run / "manifest.json"
    if not path.is_file():
        return {}
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise PPLValueError(f"{path} is not JSON ({error}); run the step that writes it again") from error


def _section(manifest: Mapping[str, Any], name: str) -> dict[str, dict[str, Any]]:
    """Return a section of a manifest by split; a section that is missing or null is empty."""
    found = manifest.get(name) or {}
    try:
        return {split: dict(values or {}) for split, values in found.items()}
    except (AttributeError, TypeError, ValueError) as error:
        raise PPLValueError(f"manifest.json holds {name} = {found!r:.60}; expected split -> name -> share") from error


def _score_tables(manifests: Mapping[str, Mapping[str, Any]]) -> list[Table]:
    splits = dict.fromkeys(split for manifest in manifests.values() for split in _section(manifest, "scores"))
    tables = []
    for split in splits:
        scores = {arm: _section(manifest, "scores").get(split, {}) for arm, manifest in manifests.items()}
        names = list(dict.fromkeys(name for row in scores.values() for name in row))
        rows = [[arm, *(row.get(name) for name in names)] for arm, row in scores.items()]
        tables.append(Table(f"Scores on {split}, %", ["model", *names], rows))
    return tables


def _class_tables(manifests: Mapping[str, Mapping[str, Any]]) -> list[Table]:
    splits = dict.fromkeys(split for manifest in manifests.values() for split in _section(manifest, "per_class"))
    tables = []
    for split in splits:
        columns = {
            f"{arm}, {kind}" if len(manifests) > 1 else kind: dict(values or {})
            for arm, manifest in manifests.items()
            for kind, values in _section(manifest, "per_class").get(split, {}).items()
        }
        classes = list(dict.fromkeys(name for column in columns.values() for name in column))
        rows = [[name, *(column.get(name) for column in columns.values())] for name in classes]
        tables.append(Table(f"IoU per class on {split}, %", ["class", *columns], rows, compare="row"))
    return tables


def _image_tables(manifest: Mapping[str, Any], count: int = 5) -> list[Table]:
    tables = []
    for split, scores in _section(manifest, "per_image").items():
        known = {name: value for name, value in scores.items() if _is_number(value) and not math.isnan(value)}
        ranked = sorted(known.items(), key=lambda item: -item[1])
        pairs = zip(ranked[:count], ranked[: -count - 1 : -1], strict=True)
        rows = [[*best, *worst] for best, worst in pairs]
        columns = ["best", "IoU", "worst", "IoU"]
        tables.append(Table(f"Best and worst images of {split}, IoU in %", columns, rows, compare=None))
    return tables


def _plain(value: Any) -> Any:
    """Return a number of numpy or torch as a Python number, and other values as they are."""
    return value.item() if getattr(value, "shape", None) == () and hasattr(value, "item") else value


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _text(value: Any) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "–"
    return f"{100 * value:.1f}" if isinstance(value, float) else str(value)
