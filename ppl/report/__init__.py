"""Pictures of results: overlays, image grids, training curves, and an HTML report that contains them."""

from __future__ import annotations

from ppl.report.curves import curves, read_history
from ppl.report.html_report import Picture, Report, Table, read_run, write_report
from ppl.report.image_grid import GridRow, image_grid
from ppl.report.overlay import class_colours, overlay, overlay_mask

__all__ = [
    "GridRow",
    "Picture",
    "Report",
    "Table",
    "class_colours",
    "curves",
    "image_grid",
    "overlay",
    "overlay_mask",
    "read_history",
    "read_run",
    "write_report",
]
