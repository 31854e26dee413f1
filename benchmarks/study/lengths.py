"""Draw how arms gain by twice the epochs: a dot is a seed, a line the mean.

    python benchmarks/study/lengths.py docs/figures/study_lengths.svg

Only seeds of which both lengths were trained are drawn.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path
from typing import Any

from summarize import HERE, SETTING, Cells, read

ARMS = {
    "progressive_ngwp": ("nGWP, progressive patch learning", "tab:red"),
    "baseline_ngwp": ("nGWP", "tab:blue"),
    "control_ngwp": ("nGWP, control", "tab:gray"),
    "baseline": ("average pooling", "tab:green"),
}
SIZES = ("256x192", "384x288")
EPOCHS = ("6", "12")


def found(data: str, size: str, epochs: str) -> Cells:
    """The cells of one length: seeds with views of their own, at the study's rate."""
    wanted = {"data": data, "size": size, "epochs": epochs, "views": "own", "lr": "0.0001"}
    return next(
        cells
        for setting, cells in read(HERE / "results" / "cells.csv").items()
        if wanted.items() <= dict(zip(SETTING, setting, strict=True)).items()
    )


def draw_size(axis: Any, data: str, size: str, reading: str) -> None:
    cells = [found(data, size, epochs) for epochs in EPOCHS]
    for nudge, (arm, (label, color)) in enumerate(ARMS.items()):
        # the seeds of both lengths, so that a line compares like with like
        both = [rows.get((arm, reading), {}) for rows in cells]
        seeds = sorted(set.intersection(*map(set, both)))
        places = [place + 0.03 * (nudge - 1.5) for place in range(len(EPOCHS))]
        scores = [[float(rows[seed]["miou_best"]) for seed in seeds] for rows in both]
        for place, values in zip(places, scores, strict=True):
            axis.plot([place] * len(values), values, "o", color=color, alpha=0.4, markersize=4)
        name = label if len(seeds) > 1 else f"{label} (one seed)"
        line = "-" if len(seeds) > 1 else ":"
        axis.plot(places, [statistics.mean(values) for values in scores], line, color=color, label=name)
    axis.set_xticks(range(len(EPOCHS)), [f"{epochs} epochs" for epochs in EPOCHS])
    axis.set_xlim(-0.3, len(EPOCHS) - 0.7)
    axis.set_title(f"crops of {size}", fontsize=9)
    axis.spines[["top", "right"]].set_visible(False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("picture", type=Path)
    parser.add_argument("--data", default="clothing")
    parser.add_argument("--reading", default="layercam")
    options = parser.parse_args()

    import matplotlib

    matplotlib.use("svg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(SIZES), figsize=(7.5, 3.4))
    for axis, size in zip(axes, SIZES, strict=True):
        draw_size(axis, options.data, size, options.reading)
    axes[0].set_ylabel("CAM mIoU at the best threshold, percent", fontsize=8)
    handles, labels = axes[-1].get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower center", ncols=2, fontsize=8, frameon=False)
    figure.tight_layout(rect=(0, 0.13, 1, 1))
    figure.savefig(options.picture, metadata={"Date": None})


if __name__ == "__main__":
    main()
