"""The report of a run: one HTML file that contains its tables, pictures and curves."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from ppl.report.page import write_page
from ppl.report.parts import Gallery, Picture, Table

__all__ = ["Report", "write_report"]

Part: TypeAlias = Table | Picture | Gallery


@dataclass
class Report:
    """The content of a report; empty fields are left out.

    Attributes:
        title: heading of the report.
        summary: one line below the title.
        notes: remarks on the scores, such as on which masks a threshold was chosen.
        parts: tables, pictures and galleries in order, the most important one first.
        manifest: the settings and versions of the run, printed as JSON.
    """

    title: str
    summary: str = ""
    notes: list[str] = field(default_factory=list)
    parts: list[Part] = field(default_factory=list)
    manifest: dict[str, Any] = field(default_factory=dict)


def write_report(report: Report, path: str | os.PathLike[str]) -> Path:
    """Write a report as one HTML file that contains its pictures and needs no network, whole or not at all.

    Sliders and sorting need JavaScript, which is part of the file; without JavaScript the page shows every stage.

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
        >>> file = write_report(Report("demo", parts=[table]), Path(folder.name) / "report.html")
        >>> "47.0" in file.read_text(encoding="utf-8")
        True
        >>> folder.cleanup()
    """
    manifest = json.dumps(report.manifest, indent=2, default=str, ensure_ascii=False) if report.manifest else ""
    return write_page("report.html", path, title=report.title, report=report, manifest=manifest)
