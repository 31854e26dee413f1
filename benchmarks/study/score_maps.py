"""Score the maps and masks that the library makes of a trained cell, with no threshold chosen on masks.

    python benchmarks/study/score_maps.py DATASET SPLIT WEIGHTS EPOCH.pt ... --methods cam sharpened_cam propagated_cam

One row per cell and method: mIoU of the masks cut by the background rule "auto" (Otsu's threshold of each image), at
the best constant threshold (which is chosen on the masks, for comparison), and after the CRF; recall, precision and
coverage of heads and bodies (parts 1 and 2 of `masks_parts/`) at "auto"; recall of the largest third of objects. Image
tags are known. Rows that are in the file already are passed over.
"""

from __future__ import annotations

import csv
import fcntl
import time
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from trained_cells import cell_maps, cells_parser, part

from ppl.cam import CamConfig, CamResult
from ppl.data import PartMasks, TaggedImages, open_dataset
from ppl.metrics import ConfusionMatrix, PartCoverage, ThresholdSweep
from ppl.refine import apply_refiners, parse_refiners

HERE = Path(__file__).parent


def main() -> None:
    parser = cells_parser(__doc__)
    parser.add_argument("--branch", default=CamConfig().branch, help="maps of a network with patches: unpatched or all")
    parser.add_argument("--methods", nargs="+", default=["cam", "sharpened_cam", "propagated_cam"])
    parser.add_argument("--scales", type=float, nargs="+", default=CamConfig().scales)
    parser.add_argument("--refine", default="crf: irn")
    parser.add_argument("--images", default="::", help="START:STOP:STEP of the split")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "maps.csv")
    options = parser.parse_args()
    torch.set_num_threads(1)
    images = part(open_dataset(options.data, options.split), options.images)
    for cell, method in product(options.cells, options.methods):
        row = {
            "data": options.data.name,
            "split": options.split,
            "images": options.images,
            "cell": f"{cell.parent.name}/{cell.stem}",
            "method": method,
            "branch": options.branch,
            "scales": " ".join(f"{scale:g}" for scale in options.scales),
            "refine": options.refine,
        }
        if is_known(options.out, row):
            continue
        started = time.perf_counter()
        results = cell_maps(cell, images, options, method=method, branch=options.branch)
        row |= score(images, PartMasks(options.data), results, options.refine) | {
            "seconds": round(time.perf_counter() - started)
        }
        print(row, flush=True)
        append(options.out, row)


def is_known(path: Path, row: dict[str, Any]) -> bool:
    """Tell whether a file has a row with these values."""
    if not path.exists():
        return False
    with path.open(newline="") as file:
        return any(all(known[key] == str(value) for key, value in row.items()) for known in csv.DictReader(file))


def score(images: TaggedImages, part_masks: PartMasks, results: Iterator[CamResult], refine: str) -> dict[str, Any]:
    """Score maps, in percent; without refiners the refined mIoU is empty."""
    channels = len(images.classes) + 1
    refiners, sweep = parse_refiners(refine) if refine else [], ThresholdSweep(channels)
    cut, refined = ConfusionMatrix(channels), ConfusionMatrix(channels)
    parts, objects = PartCoverage(("head", "body")), []
    for sample, result in zip(images, results, strict=True):
        truth, mask = sample.read_mask(), result.to_mask("auto")
        cut.update(truth, mask)
        sweep.update(truth, result.maps, result.classes)
        part_mask = part_masks.read(sample.image_id)
        if part_mask is not None:
            parts.update(truth, mask, part_mask)
        objects += recall_of_objects(np.asarray(truth), np.asarray(mask))
        if refiners:
            labels = np.concatenate([[0], result.classes.numpy() + 1])
            probs = apply_refiners(refiners, np.asarray(sample.read_image()), result.to_probs("auto").numpy())
            refined.update(truth, labels[probs.argmax(axis=0)])
    best = sweep.best()
    large = [hit for _, hit in sorted(objects)[2 * len(objects) // 3 :]]
    return {
        "auto": percent(cut.compute()["miou"]),
        "best": percent(sweep.scores(best)["miou"]),
        "at": best,
        "recall": foreground(cut, 1),
        "precision": foreground(cut, 0),
        **{part: percent(share) for part, share in parts.compute().items()},
        "large": percent(np.mean(large)),
        "refined": percent(refined.compute()["miou"]) if refiners else "",
        "refined_recall": foreground(refined, 1) if refiners else "",
        "refined_precision": foreground(refined, 0) if refiners else "",
    }


def recall_of_objects(truth: np.ndarray, mask: np.ndarray) -> list[tuple[float, float]]:
    """Return for each class of an image its share of the image's area, and the share of its pixels that are found."""
    found = ((truth == label, label) for label in np.unique(truth) if label not in (0, 255))
    return [(float(area.mean()), float((mask[area] == label).mean())) for area, label in found]


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
