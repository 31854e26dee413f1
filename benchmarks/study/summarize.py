"""Means, spreads and paired differences of the study's cells, as Markdown and as a picture.

    python benchmarks/study/summarize.py [results/cells.csv] [--picture docs/figures/study_clothing.svg]

A difference is taken seed by seed, with its 95% confidence interval (Student's t). Fewer than two seeds have none.
"""

from __future__ import annotations

import argparse
import csv
import statistics
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from scipy import stats

HERE = Path(__file__).parent
Cells = dict[tuple[str, str], dict[int, dict[str, str]]]
"""Rows by (arm, branch) and seed."""


def read(path: Path, data: str, epochs: str, lr: str, images: str) -> Cells:
    cells: Cells = defaultdict(dict)
    wanted = {"data": data, "epochs": epochs, "lr": lr, "images": images}
    with path.open() as file:
        for row in csv.DictReader(file):
            if all(row[key] == value for key, value in wanted.items()):
                cells[row["arm"], row["branch"]][int(row["seed"])] = row
    return cells


def settings(path: Path) -> list[tuple[str, str, str, str]]:
    with path.open() as file:
        return sorted({(row["data"], row["epochs"], row["lr"], row["images"]) for row in csv.DictReader(file)})


def spread(values: list[float]) -> str:
    mean = statistics.mean(values)
    return f"{mean:.1f} ± {statistics.stdev(values):.1f}" if len(values) > 1 else f"{mean:.1f}"


def paired(ours: dict[int, dict[str, str]], theirs: dict[int, dict[str, str]], key: str) -> tuple[float, float] | None:
    """Mean difference and half the width of its 95% interval, over the seeds that both have."""
    differences = [float(ours[seed][key]) - float(theirs[seed][key]) for seed in sorted(set(ours) & set(theirs))]
    if len(differences) < 2:
        return None
    error = statistics.stdev(differences) / len(differences) ** 0.5
    return statistics.mean(differences), float(stats.t.ppf(0.975, len(differences) - 1)) * error


def table(cells: Cells) -> Iterator[str]:
    columns = ("map", "miou_auto", "miou_best", "recall", "precision")
    yield (
        "| arm | read from | seeds | mAP | CAM at auto | CAM at best | recall | precision "
        "| best - baseline | best - control |"
    )
    yield "|" + " --- |" * 10
    for (arm, branch), rows in cells.items():
        values = [spread([float(row[key]) for row in rows.values()]) for key in columns]
        gains = []
        for other in ("baseline", "control"):
            gain = None if arm == other else paired(rows, cells.get((other, "all"), {}), "miou_best")
            gains.append("" if gain is None else f"{gain[0]:+.1f} ± {gain[1]:.1f}")
        yield f"| {arm} | {branch} | {len(rows)} | " + " | ".join([*values, *gains]) + " |"


def draw(cells: Cells, path: Path) -> None:
    import matplotlib

    matplotlib.use("svg")
    import matplotlib.pyplot as plt

    shown = {key: rows for key, rows in cells.items() if key[1] != "patched"}  # which is far to the left
    figure, axis = plt.subplots(figsize=(7, 0.35 * len(shown) + 1))
    for height, ((arm, branch), rows) in enumerate(reversed(shown.items())):
        values = [float(row["miou_best"]) for row in rows.values()]
        axis.plot(values, [height] * len(values), "o", color="tab:blue", alpha=0.5, markersize=5)
        axis.plot(statistics.mean(values), height, "|", color="black", markersize=14)
        axis.text(
            -0.01,
            height,
            arm if branch == "all" else f"{arm}, {branch}",
            transform=axis.get_yaxis_transform(),
            ha="right",
            va="center",
            fontsize=8,
        )
    axis.set_yticks([])
    axis.set_ylim(-0.6, len(shown) - 0.4)
    axis.set_xlabel("CAM mIoU at the best threshold, percent; a dot is a seed, the bar their mean")
    axis.spines[["top", "right", "left"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cells", type=Path, nargs="?", default=HERE / "results" / "cells.csv")
    parser.add_argument("--picture", type=Path, help="folder for one picture for each data set")
    options = parser.parse_args()
    for data, epochs, lr, images in settings(options.cells):
        cells = read(options.cells, data, epochs, lr, images)
        print(f"\n{data}, {epochs} epochs, lr {lr}, scored on {images} images of val\n")
        print("\n".join(table(cells)))
        if options.picture:
            draw(cells, options.picture / f"study_{data}.svg")


if __name__ == "__main__":
    main()
