"""Training curves from `metrics.jsonl`."""

from __future__ import annotations

import io
import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ppl.errors import PPLFileNotFoundError, PPLValueError
from ppl.io import atomic_write
from ppl.report.fonts import installed_fonts

__all__ = ["curves", "read_history"]

History = Sequence[Mapping[str, Any]]
_EPOCH, _PHASE = "epoch", "phase"
_TITLES = {
    "loss": "training loss",
    "val_mAP": "validation mAP",
    "lr": "learning rate",
    "val_loss": "validation loss",
    "miou": "mIoU",
}


def read_history(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """Read a file of one JSON object per line.

    A last line that was cut off by a kill is left out.

    Raises:
        PPLFileNotFoundError: if the file is missing.
        PPLValueError: if any other line is broken; the message holds its number.
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig", errors="replace")
    except FileNotFoundError as error:
        raise PPLFileNotFoundError(f"{path} is missing; train first") from error
    lines = text.rstrip("\n").split("\n")  # splitlines would also split at U+2028 inside a text
    history = [_parse(line, f"{path} line {n}", last=n == len(lines)) for n, line in enumerate(lines, start=1)]
    return [line for line in history if line]


def _parse(line: str, where: str, *, last: bool) -> dict[str, Any]:
    try:
        return dict(json.loads(line)) if line.strip() else {}
    except (ValueError, TypeError) as error:
        if last:
            return {}
        raise PPLValueError(f"{where} is not a JSON object: {error}; remove the line") from error


def curves(
    runs: Mapping[str, History],
    path: str | os.PathLike[str] | None = None,
    *,
    keys: Sequence[str] = ("loss", "val_mAP", "lr"),
    x: str = _EPOCH,
) -> str:
    """Draw the curves of one or several runs side by side, one panel per key.

    A dotted line marks the first epoch of a training phase. Values that are missing or null are left out.

    Args:
        runs: name of each run -> its epochs; see `read_history`.
        path: the file to write (.svg, .png, ...), whole or not at all; None: no file.
        keys: the keys to draw; a key that no run has is skipped.
        x: the key of the horizontal axis.

    Returns:
        The drawing as SVG text for an HTML page.

    Raises:
        PPLValueError: if there is nothing to draw.

    Example:
        >>> history = [{"epoch": 0, "loss": 0.7}, {"epoch": 1, "loss": 0.4}]
        >>> curves({"baseline": history})[:4]
        '<svg'
    """
    from matplotlib.figure import Figure
    from matplotlib.font_manager import FontProperties
    from matplotlib.lines import Line2D
    from matplotlib.ticker import MaxNLocator

    panels = [key for key in keys if any(_points(history, key, x)[0] for history in runs.values())]
    if not panels:
        raise PPLValueError(f"there is nothing to draw: no epoch holds any of {', '.join(keys)}")
    figure = Figure(figsize=(4.3 * len(panels), 2.9), layout="constrained")  # no pyplot: nothing global is touched
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for axis, key in zip(axes, panels, strict=True):
        for number, history in enumerate(runs.values()):
            across, up = _points(history, key, x)
            axis.plot(across, up, marker="o" if len(across) < 25 else None, markersize=3, color=f"C{number}")
            for start in _phase_starts(history):
                axis.axvline(start, color=f"C{number}", linestyle=":", linewidth=0.9, alpha=0.7)
        axis.set_title(_TITLES.get(key, key), fontsize=10, loc="left")
        axis.set_xlabel(x, fontsize=9)
        axis.xaxis.set_major_locator(MaxNLocator(integer=x == _EPOCH, min_n_ticks=1))
        axis.tick_params(labelsize=8)
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
    if len(runs) > 1:
        # Own handles, since matplotlib hides labels that begin with "_"; "$" would begin a formula.
        names = [name.replace("$", r"\$") for name in runs]
        handles = [Line2D([], [], color=f"C{number}") for number in range(len(names))]
        legend = axes[0].legend(handles, names, fontsize=8, frameon=False)
        others = installed_fonts(names)
        for name, text in zip(names, legend.get_texts(), strict=True):
            if name in others:
                text.set_fontproperties(FontProperties(fname=str(others[name]), size=8))
    if path is not None:
        with atomic_write(path) as handle:
            figure.savefig(handle, format=Path(path).suffix[1:] or "svg", dpi=150)
    drawing = io.StringIO()
    figure.savefig(drawing, format="svg", metadata={"Date": None})
    text = drawing.getvalue()
    return text[text.index("<svg") :].strip()


def _points(history: History, key: str, x: str) -> tuple[list[float], list[float]]:
    """Return the places and values at which a key holds a number. Of a list (per parameter group), take the first."""
    across, up = [], []
    for number, line in enumerate(history):
        value = line.get(key)
        value = value[0] if isinstance(value, list) and value else value
        if isinstance(value, (int, float)) and math.isfinite(value):
            across.append(_place(line, x, number))
            up.append(float(value))
    return across, up


def _place(line: Mapping[str, Any], x: str, number: int) -> float:
    """Return the place of a line on the horizontal axis, or the line's number if that is not a number."""
    value = line.get(x)
    return float(value if isinstance(value, (int, float)) and math.isfinite(value) else number)


def _phase_starts(history: History) -> list[float]:
    phases = [line.get(_PHASE) for line in history]
    return [
        _place(history[i], _EPOCH, i) - 0.5
        for i in range(1, len(phases))
        if phases[i] != phases[i - 1] and None not in phases
    ]
