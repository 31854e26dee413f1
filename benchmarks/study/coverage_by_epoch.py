"""Draw mIoU and the covered shares of heads and bodies by arm and epoch, and print a table of each arm's best epoch.

    python benchmarks/study/coverage_by_epoch.py docs/figures/voc_coverage.svg

Reads the rows of `results/maps.csv` that `score_maps.py` made of every epoch (scale 1, not refined). A line is the mean
of the seeds, a dot a seed.
"""

from __future__ import annotations

import argparse
import csv
from collections import defaultdict
from pathlib import Path
from statistics import mean
from typing import Any

from trained_cells import CELL

HERE = Path(__file__).parent

ARMS = {
    "baseline": ("baseline", "black"),
    "control": ("control: two branches, no patches", "tab:gray"),
    "progressive_default": ("progressive", "tab:red"),
    "explicit_default": ("explicit", "tab:orange"),
    "front_puzzle": ("patches and Puzzle-CAM's loss", "tab:green"),
    "front_erased": ("most telling patch hidden", "tab:blue"),
    "front_erased_4x4": ("the same with 4x4 patches", "tab:cyan"),
    "front_patches_4x4": ("each of 4x4 patches classified", "tab:pink"),
    "progressive_default_zeros": ("progressive, zeros as padding", "tab:purple"),
}
"""Label and colour by arm."""
SCORES = {"auto": 'CAM at "auto", mIoU', "head": "heads covered", "body": "bodies covered"}
Rows = dict[tuple[str, int], list[dict[str, str]]]
"""Rows of all seeds by arm and epoch."""


def read(path: Path, **wanted: str) -> Rows:
    """Return the scores of every epoch of the cells of one backbone, length and rate."""
    found: Rows = defaultdict(list)
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            name, _, epoch = row["cell"].rpartition("/epoch")
            cell = CELL.fullmatch(name)
            every = row["method"] == "cam" and row["scales"] == "1" and not row["refine"]
            if every and cell and wanted.items() <= cell.groupdict().items():
                found[cell["arm"], int(epoch)].append(row)
    return found


def average(rows: Rows, arm: str, epoch: int, score: str) -> float:
    return mean(float(row[score]) for row in rows[arm, epoch])


def epochs_of(rows: Rows, arm: str) -> list[int]:
    return sorted(epoch for name, epoch in rows if name == arm)


def table(rows: Rows, arms: list[str]) -> None:
    """Print the scores of each arm at the epoch that has the best mIoU, and at the last one."""
    print("| arm | seeds | epoch | auto | recall | precision | head | body | head - body |")
    print("|" + " --- |" * 9)
    for arm in arms:
        epochs = epochs_of(rows, arm)
        best = max(epochs, key=lambda epoch: average(rows, arm, epoch, "auto"))
        for epoch in dict.fromkeys((best, epochs[-1])):
            scores = [average(rows, arm, epoch, key) for key in ("auto", "recall", "precision", "head", "body")]
            shown = " | ".join(f"{score:.1f}" for score in [*scores, scores[3] - scores[4]])
            print(f"| {ARMS[arm][0]} | {len(rows[arm, epoch])} | {epoch} | {shown} |")


def draw_score(axis: Any, rows: Rows, arms: list[str], score: str) -> None:
    for arm in arms:
        label, color = ARMS[arm]
        epochs = epochs_of(rows, arm)
        means = [average(rows, arm, epoch, score) for epoch in epochs]
        axis.plot(epochs, means, color=color, label=label, linewidth=1.2)
        for epoch in epochs:
            values = [float(row[score]) for row in rows[arm, epoch]]
            axis.plot([epoch] * len(values), values, "o", color=color, alpha=0.5, markersize=3)
    axis.set_title(f"{SCORES[score]}, percent", fontsize=9)
    axis.set_xlabel("epoch", fontsize=8)
    axis.set_xticks(sorted({epoch for _, epoch in rows}))
    axis.tick_params(labelsize=8)
    axis.spines[["top", "right"]].set_visible(False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("picture", type=Path)
    parser.add_argument("--maps", type=Path, default=HERE / "results" / "maps.csv")
    parser.add_argument("--backbone", default="mobilenetv2_100")
    parser.add_argument("--epochs", default="4", help="length of the training")
    parser.add_argument("--rate", default="0.0001", help='learning rate; "0.01-sgd" for SGD')
    options = parser.parse_args()

    import matplotlib

    matplotlib.use("svg")
    import matplotlib.pyplot as plt

    rows = read(options.maps, backbone=options.backbone, length=options.epochs, rate=options.rate)
    arms = [arm for arm in ARMS if epochs_of(rows, arm)]
    table(rows, arms)
    figure, axes = plt.subplots(1, len(SCORES), figsize=(9, 3.6))
    for axis, score in zip(axes, SCORES, strict=True):
        draw_score(axis, rows, arms, score)
    low, high = (pick(axis.get_ylim()[end] for axis in axes[1:]) for end, pick in ((0, min), (1, max)))
    for axis in axes[1:]:
        axis.set_ylim(low, high)  # heads and bodies are compared
    figure.legend(*axes[0].get_legend_handles_labels(), loc="lower center", ncols=3, fontsize=8, frameon=False)
    figure.tight_layout(rect=(0, 0.05 + 0.05 * -(-len(arms) // 3), 1, 1))
    figure.savefig(options.picture, metadata={"Date": None})


if __name__ == "__main__":
    main()
