"""Score the maps and masks that the library makes of a trained cell, with no threshold chosen on masks.

    python benchmarks/study/score_maps.py DATASET SPLIT WEIGHTS EPOCH.pt --methods cam sharpened_cam propagated_cam

One row per method: mIoU of the masks cut by the background rule "auto" (Otsu's threshold of each image), at the best
constant threshold (which is chosen on the masks, for comparison), and after the CRF. Image tags are known.
"""

from __future__ import annotations

import argparse
import csv
import fcntl
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from train_cells import load_cell

from ppl.cam import CamConfig, CamResult, iter_generate
from ppl.data import TaggedImages, open_dataset
from ppl.metrics import ConfusionMatrix, ThresholdSweep
from ppl.refine import apply_refiners, parse_refiners

HERE = Path(__file__).parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("split")
    parser.add_argument("weights", type=Path)
    parser.add_argument("cell", type=Path, help="weights of one epoch, as train_cells.py keeps them")
    parser.add_argument("--arm", default="baseline")
    parser.add_argument("--methods", nargs="+", default=["cam", "sharpened_cam", "propagated_cam"])
    parser.add_argument("--scales", type=float, nargs="+", default=CamConfig().scales)
    parser.add_argument("--refine", default="crf: irn")
    parser.add_argument("--images", default="::", help="START:STOP:STEP of the split")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "maps.csv")
    options = parser.parse_args()
    torch.set_num_threads(1)
    images = open_dataset(options.data, options.split)
    model = load_cell(options.cell, options.weights, options.arm, len(images.classes))
    images = images[slice(*(int(word) if word else None for word in options.images.split(":")))]
    for method in options.methods:
        row = {
            "data": options.data.name,
            "split": options.split,
            "images": options.images,
            "cell": f"{options.cell.parent.name}/{options.cell.stem}",
            "method": method,
            "scales": " ".join(f"{scale:g}" for scale in options.scales),
            "refine": options.refine,
        }
        started = time.perf_counter()
        results = iter_generate(
            model,
            [sample.image for sample in images],
            [list(sample.labels) for sample in images],
            scales=options.scales,
            method=method,
            amp=True,
        )
        row |= score(images, results, options.refine) | {"seconds": round(time.perf_counter() - started)}
        print(row, flush=True)
        append(options.out, row)


def score(images: TaggedImages, results: Iterator[CamResult], refine: str) -> dict[str, Any]:
    """Score maps, in percent."""
    channels = len(images.classes) + 1
    refiners, sweep = parse_refiners(refine), ThresholdSweep(channels)
    cut, refined = ConfusionMatrix(channels), ConfusionMatrix(channels)
    for sample, result in zip(images, results, strict=True):
        truth = sample.read_mask()
        cut.update(truth, result.to_mask("auto"))
        sweep.update(truth, result.maps, result.classes)
        labels = np.concatenate([[0], result.classes.numpy() + 1])
        probs = apply_refiners(refiners, np.asarray(sample.read_image()), result.to_probs("auto").numpy())
        refined.update(truth, labels[probs.argmax(axis=0)])
    best = sweep.best()
    return {
        "auto": percent(cut.compute()["miou"]),
        "best": percent(sweep.scores(best)["miou"]),
        "at": best,
        "refined": percent(refined.compute()["miou"]),
        "recall": foreground(refined, 1),
        "precision": foreground(refined, 0),
    }


def foreground(matrix: ConfusionMatrix, axis: int) -> float:
    """Return recall (axis 1) or precision (axis 0) of all objects together, in percent."""
    counts = matrix.counts.double()
    hits = counts.diagonal()[1:].sum()
    return percent(hits / (counts[1:] if axis == 1 else counts[:, 1:]).sum())


def percent(value: Any) -> float:
    return round(100 * float(value), 2)


def append(path: Path, row: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+", newline="") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0, 2)
        writer = csv.DictWriter(file, list(row))
        if not file.tell():
            writer.writeheader()
        writer.writerow(row)


if __name__ == "__main__":
    main()
