"""The pictures on which one arm's CAMs beat another's most, and those on which they lose most, side by side.

    python benchmarks/study/sheets.py DATASET WEIGHTS --arms baseline progressive --seed 0 --out sheets

Arms are read from `--work`, where `run.py` kept their weights. Also printed, for each arm: how much of the
objects is covered by their size, and which share of the wrong pixels is spilt, of another class, or missed.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from arms import ARMS
from cell import build, maps_of
from features import load_network, scored_groups
from run import SCALES

from ppl.backbones import data_config
from ppl.data import TaggedImages, open_dataset
from ppl.metrics import ConfusionMatrix, ThresholdSweep

SIZES = (0.0, 0.005, 0.02, 0.08, 1.0)
"""Objects by their share of the picture."""


def cams_of(options: argparse.Namespace, arm: str, images: TaggedImages) -> list[Any]:
    """CAMs of every picture of the split."""
    network = load_network(options.weights, 16)
    front = options.work / f"{options.data.name}_val{len(images)}_{'_'.join(map(str, SCALES))}.pt"
    model = build(ARMS[arm], len(images.classes), options.weights, 16)
    name = f"{options.data.name}_{arm}_{options.epochs}_{options.lr:g}_{options.seed}.pt"
    model.load_state_dict(torch.load(options.work / "weights" / name, weights_only=True))
    model.to(memory_format=torch.channels_last).eval()
    targets = images.targets()
    found: list[Any] = [None] * len(images)
    for group in scored_groups(images, network, data_config(network), SCALES, front):
        rows = [targets[number].nonzero().flatten() for number in group.members]
        for number, result in zip(group.members, maps_of(model, group, rows, ["all"])[0][0], strict=True):
            found[number] = result
    return found


def describe(cams: list[Any], images: TaggedImages) -> tuple[float, list[np.ndarray], list[float]]:
    """The best threshold, the masks at it, and each picture's mean IoU; prints coverage and kinds of error."""
    sweep = ThresholdSweep(len(images.classes) + 1)
    truths = [sample.read_mask() for sample in images]
    for truth, cam in zip(truths, cams, strict=True):
        sweep.update(truth, cam.maps, cam.classes)
    best = sweep.best()
    masks = [cam.to_mask(background=best).numpy() for cam in cams]
    covered: dict[float, list[int]] = defaultdict(lambda: [0, 0])
    errors, scores = np.zeros(3), []
    for truth, mask in zip(truths, masks, strict=True):
        confusion = ConfusionMatrix(len(images.classes) + 1)
        confusion.update(truth, mask)
        scores.append(float(confusion.compute()["miou"]))
        wrong = (truth != 255) & (truth != mask)
        errors += [
            (wrong & (truth == 0)).sum(),
            (wrong & (truth != 0) & (mask != 0)).sum(),
            (wrong & (mask == 0)).sum(),
        ]
        for value in np.setdiff1d(np.unique(truth), [0, 255]):
            area = truth == value
            size = max(edge for edge in SIZES[:-1] if edge <= area.mean())
            covered[size][0] += int((area & (mask == value)).sum())
            covered[size][1] += int(area.sum())
    for low, high in pairwise(SIZES):
        hits, total = covered[low]
        print(f"  objects of {low:.1%} to {high:.1%} of the picture: {hits / max(total, 1):.1%} covered")
    share = errors / errors.sum()
    print(f"  of the wrong pixels: {share[0]:.0%} spilt, {share[1]:.0%} of another class, {share[2]:.0%} missed")
    return best, masks, scores


def draw(
    images: TaggedImages, columns: dict[str, list[np.ndarray]], chosen: list[int], notes: list[str], out: Path
) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(len(chosen), 2 + len(columns), figsize=(2 * (2 + len(columns)), 2.7 * len(chosen)))
    paint: dict[str, Any] = {"cmap": "tab20", "vmin": 0, "vmax": 19, "interpolation": "nearest"}
    for axis in axes.flat:
        axis.axis("off")
    for row, (number, note) in enumerate(zip(chosen, notes, strict=True)):
        axes[row, 0].imshow(images[number].read_image())
        axes[row, 0].set_title(note, fontsize=7)
        truth = images[number].read_mask()
        axes[row, 1].imshow(np.where(truth == 255, 0, truth), **paint)
        axes[row, 1].set_title("truth", fontsize=7)
        for column, (name, masks) in enumerate(columns.items()):
            axes[row, 2 + column].imshow(masks[number], **paint)
            axes[row, 2 + column].set_title(name, fontsize=7)
    figure.tight_layout(pad=0.3)
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=70)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("weights", type=Path)
    parser.add_argument("--arms", nargs=2, default=["baseline", "progressive"])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--lr", type=float, default=1e-4)
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--work", type=Path, default=Path("runs/study"))
    parser.add_argument("--out", type=Path, default=Path("runs/study/sheets"))
    options = parser.parse_args()
    images = open_dataset(options.data, "val")
    columns, scores = {}, []
    for arm in options.arms:
        print(arm)
        best, masks, own = describe(cams_of(options, arm, images), images)
        columns[f"{arm}, threshold {best:g}"] = masks
        scores.append(own)
    gains = np.subtract(scores[1], scores[0])
    order = np.argsort(gains)
    for name, chosen in (("losses", order[: options.rows]), ("gains", order[::-1][: options.rows])):
        notes = [f"{images[number].stem}: {100 * gains[number]:+.0f} points" for number in chosen]
        draw(images, columns, list(chosen), notes, options.out / f"{options.data.name}_{name}.png")
        print(options.out / f"{options.data.name}_{name}.png")


if __name__ == "__main__":
    main()
