"""Pictures of results: overlays, image grids, training curves, and an HTML report that contains them."""

from __future__ import annotations

from ppl.report.curves import curves, read_history
from ppl.report.html_report import Report, write_report
from ppl.report.image_grid import GridRow, image_grid
from ppl.report.overlay import class_colours, overlay, overlay_mask
from ppl.report.parts import Gallery, Picture, Stages, Table
from ppl.report.run_report import read_run

__all__ = [
    "Gallery",
    "GridRow",
    "Picture",
    "Report",
    "Stages",
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
