"""What came out, for the eye: overlays, picture sheets, curves and a page that holds them all."""

from __future__ import annotations

from ppl.report.curves import curves, read_history
from ppl.report.overlay import class_colours, overlay, overlay_mask
from ppl.report.page import Picture, Report, Table, read_run, write_report
from ppl.report.sheet import Row, sheet

__all__ = [
    "Picture",
    "Report",
    "Row",
    "Table",
    "class_colours",
    "curves",
    "overlay",
    "overlay_mask",
    "read_history",
    "read_run",
    "sheet",
    "write_report",
]
