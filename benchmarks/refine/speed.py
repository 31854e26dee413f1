"""CPU time of each refiner at one image size, in one thread; pixel-adaptive also against its unfolded form.

    python benchmarks/refine/speed.py --out benchmarks/refine/results/speed.csv

The unfolded form stacks the 48 shifted copies of the maps, as the method is usually written; `pixel_adaptive` adds them
up one by one. Both run in turn within one process, and the table gives the ratio of their times.
"""

from __future__ import annotations

import argparse
import csv
import time
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table
from skimage import data, transform

from ppl.refine import apply_refiners, parse_refiners

REFINERS = [
    "crf: psa",
    "crf: irn",
    "pixel_adaptive",
    "guided_filter",
    "superpixels: slic",
    "superpixels: felzenszwalb",
    "random_walk",
    "random_walk: {stride: 4, num_steps: 256}",
]


def unfolded_pixel_adaptive(image, maps, iterations=10, dilations=(1, 2, 4, 8, 12, 24)):
    """Refine with all neighbours of all maps in memory at once."""
    height, width = maps.shape[1:]

    def windows(x):
        stacked = []
        for d in dilations:
            padded = F.pad(x[None], (d, d, d, d), mode="replicate")[0]
            stacked += [
                padded[:, d + d * y : d + d * y + height, d + d * x : d + d * x + width]
                for y in (-1, 0, 1)
                for x in (-1, 0, 1)
            ]
        return torch.stack(stacked, dim=1)

    colours = torch.from_numpy(image).permute(2, 0, 1).float() / 255
    around = windows(colours)
    deviation = around.std(dim=1, keepdim=True)
    others = [i for i in range(around.shape[1]) if i % 9 != 4]
    weights = (-(around[:, others] - colours[:, None]).abs() / (1e-8 + 0.1 * deviation)).mean(dim=0).softmax(dim=0)
    values = torch.from_numpy(maps)
    for _ in range(iterations):
        values = (windows(values)[:, others] * weights).sum(dim=1)
    return values.numpy()


def cpu_seconds(function) -> float:
    start = time.process_time()
    function()
    return time.process_time() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, nargs=2, default=[375, 500])
    parser.add_argument("--labels", type=int, nargs="+", default=[3])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    image = (transform.resize(data.astronaut(), arguments.size) * 255).astype(np.uint8)

    rows = []
    for labels in arguments.labels:
        coarse = torch.rand(1, labels, 12, 16, generator=torch.Generator().manual_seed(0)) * 6
        probs = F.interpolate(coarse, arguments.size, mode="bilinear").softmax(dim=1)[0].numpy()
        runs = {name: partial(apply_refiners, parse_refiners(name), image, probs) for name in REFINERS}
        runs["pixel_adaptive, unfolded"] = partial(unfolded_pixel_adaptive, image, probs)
        times = {name: [] for name in runs}
        for run in runs.values():
            run()  # compiles
        for _ in range(arguments.repeats):  # in turn, so that a busy machine slows all of them down
            for name, run in runs.items():
                times[name].append(cpu_seconds(run))
        median = {name: float(np.median(values)) for name, values in times.items()}
        difference = np.abs(runs["pixel_adaptive"]() - runs["pixel_adaptive, unfolded"]()).max()
        assert difference < 1e-4, difference
        ratio = np.median(np.divide(times["pixel_adaptive, unfolded"], times["pixel_adaptive"]))
        for name, value in median.items():
            note = f"{ratio:.1f}x the time" if "unfolded" in name else ""
            rows.append({"refiner": name, "labels": str(labels), "cpu_s": f"{value:.3f}", "note": note})
    table = Table(title=f"{arguments.size[1]}x{arguments.size[0]}, one thread, CPU seconds, median")
    for name in rows[0]:
        table.add_column(name)
    for row in rows:
        table.add_row(*row.values())
    Console().print(table)
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        with arguments.out.open("w", newline="") as handle:
            writer = csv.DictWriter(handle, rows[0])
            writer.writeheader()
            writer.writerows(rows)


if __name__ == "__main__":
    main()
