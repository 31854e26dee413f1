"""Means, spreads and paired differences of the study's cells, as Markdown and as a picture.

    python benchmarks/study/summarize.py [results/cells.csv] [--picture benchmarks/study/pages/figures]

A difference is taken seed by seed, with its 95% confidence interval (Student's t). Fewer than two seeds have none.
"""

from __future__ import annotations

import argparse
import csv
import statistics
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from scipy import stats

HERE = Path(__file__).parent
Cells = dict[tuple[str, str], dict[int, dict[str, str]]]
"""Rows by (arm, reading) and seed."""


UNMEASURED = {"", "nan"}
SETTING = ("data", "epochs", "lr", "size", "views", "scales", "images")
"""Cells that share these can be compared."""
COLUMNS = {
    "map": "mAP",
    "miou_auto": "CAM at auto",
    "miou_best": "CAM at best",
    "recall": "recall",
    "precision": "precision",
    "crf_auto": "CRF at auto",
    "crf_best": "CRF at best",
}
ERRORS = {
    "spilt": "spilt",
    "missed": "missed",
    "covered_tiny": "tiny",
    "covered_small": "small",
    "covered_medium": "medium",
    "covered_large": "large",
}


def read(path: Path) -> dict[tuple[str, ...], Cells]:
    """Cells by setting; the scores of classes have columns of their own, `iou bag`."""
    found: dict[tuple[str, ...], Cells] = {}
    with path.open() as file:
        for row in csv.DictReader(file):
            cells = found.setdefault(tuple(row[key] for key in SETTING), defaultdict(dict))
            by_class = dict(pair.rsplit("=", 1) for pair in row["iou"].split())
            cells[row["arm"], row["reading"]][int(row["seed"])] = row | {
                f"iou {name}": v for name, v in by_class.items()
            }
    return found


def spread(texts: list[str]) -> str:
    """Mean and standard deviation of what was measured; nothing if nothing was."""
    values = [float(text) for text in texts if text not in UNMEASURED]
    if not values:
        return ""
    mean = statistics.mean(values)
    return f"{mean:.1f} ± {statistics.stdev(values):.1f}" if len(values) > 1 else f"{mean:.1f}"


def paired(ours: dict[int, dict[str, str]], theirs: dict[int, dict[str, str]], key: str) -> tuple[float, float] | None:
    """Mean difference and half the width of its 95% interval, over the seeds of which both were measured."""
    differences = [
        float(ours[seed][key]) - float(theirs[seed][key])
        for seed in sorted(set(ours) & set(theirs))
        if not {ours[seed][key], theirs[seed][key]} & UNMEASURED
    ]
    if len(differences) < 2:
        return None
    error = statistics.stdev(differences) / len(differences) ** 0.5
    return statistics.mean(differences), float(stats.t.ppf(0.975, len(differences) - 1)) * error


def chosen(cells: Cells, names: Sequence[tuple[str, str]]) -> Cells:
    """Those of them that can be compared with: of two seeds or more."""
    return {name: cells[name] for name in names if len(cells.get(name, ())) > 1}


def table(cells: Cells, columns: Mapping[str, str], against: Cells | None = None, key: str = "") -> Iterator[str]:
    """Means and spreads, and the differences in `key` to the cells `against`."""
    against = against or {}
    shown = [name for name in columns if any(row.get(name) for rows in cells.values() for row in rows.values())]
    heads = ["arm", "read from", "seeds", *(columns[name] for name in shown)]
    heads += [f"{columns[key]} - {' '.join(other)}" for other in against]
    yield "| " + " | ".join(heads) + " |"
    yield "|" + " --- |" * len(heads)
    for (arm, reading), rows in cells.items():
        values = [spread([row[name] for row in rows.values()]) for name in shown]
        gains = []
        for other, theirs in against.items():
            gain = None if (arm, reading) == other else paired(rows, theirs, key)
            gains.append("" if gain is None else f"{gain[0]:+.1f} ± {gain[1]:.1f}")
        yield f"| {arm} | {reading} | {len(rows)} | " + " | ".join([*values, *gains]) + " |"


def draw(cells: Cells, path: Path) -> None:
    import matplotlib

    matplotlib.use("svg")
    import matplotlib.pyplot as plt

    # a single seed shows no spread, and patched branches are far to the left
    shown = {key: rows for key, rows in cells.items() if len(rows) > 1 and key[1] != "patched"}
    figure, axis = plt.subplots(figsize=(7, 0.35 * len(shown) + 1))
    for height, ((arm, reading), rows) in enumerate(reversed(shown.items())):
        values = [float(row["miou_best"]) for row in rows.values()]
        axis.plot(values, [height] * len(values), "o", color="tab:blue", alpha=0.5, markersize=5)
        axis.plot(statistics.mean(values), height, "|", color="black", markersize=14)
        axis.text(
            -0.01,
            height,
            f"{arm}, {reading}",
            transform=axis.get_yaxis_transform(),
            ha="right",
            va="center",
            fontsize=8,
        )
    axis.set_yticks([])
    axis.set_ylim(-0.6, len(shown) - 0.4)
    axis.set_xlabel("CAM mIoU at the best threshold, percent; a dot is a seed, a bar the mean", fontsize=7)
    axis.spines[["top", "right", "left"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})


def named(texts: Sequence[str]) -> list[tuple[str, str]]:
    """Cells from `ARM:READING`."""
    return [(arm, reading) for arm, reading in (text.split(":") for text in texts)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cells", type=Path, nargs="?", default=HERE / "results" / "cells.csv")
    parser.add_argument("--against", nargs="+", default=["baseline:whole", "control:whole"], help="ARM:READING")
    parser.add_argument("--key", default="miou_best", choices=list(COLUMNS), help="score whose differences are shown")
    parser.add_argument("--picture", type=Path, help="folder for one picture for each setting")
    options = parser.parse_args()
    against = named(options.against)
    for setting, cells in read(options.cells).items():
        print("\n" + ", ".join(f"{key} {value}" for key, value in zip(SETTING, setting, strict=True)) + "\n")
        print("\n".join(table(cells, COLUMNS, chosen(cells, against), options.key)))
        print("\nof the wrong pixels; covered of objects by size\n")
        print("\n".join(table(cells, ERRORS)))
        if options.picture and max(map(len, cells.values())) > 1:
            values = dict(zip(SETTING, setting, strict=True))
            own = "_own" if values["views"] == "own" else ""
            draw(cells, options.picture / f"study_{values['data']}_{values['size']}_{values['epochs']}{own}.svg")


if __name__ == "__main__":
    main()
