"""The pictures on which one arm's CAMs beat another's most, and those on which they lose most, side by side.

Prints, too, what pictures with a tag gain on average, and how many there are.

    python benchmarks/study/sheets.py DATASET WEIGHTS --arms baseline progressive --seed 0 --out sheets

Arms are read from `--work`, where `run.py` kept their weights, at the threshold that is best for each.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from features import load_network, scored_groups
from run import front_file, kept, scored_part
from scoring import READINGS, Tally, maps_of

from ppl.backbones import data_config
from ppl.cam import CamResult
from ppl.data import TaggedImages
from ppl.metrics import ConfusionMatrix


def cams_of(options: argparse.Namespace, arm: str, images: TaggedImages) -> list[CamResult]:
    """CAMs of every picture of the split."""
    network = load_network(options.weights, 16)
    model, _ = kept(arm, options.seed, len(images.classes), options)
    targets = images.targets()
    found: list[Any] = [None] * len(images)
    for group in scored_groups(images, network, data_config(network), options.scales, front_file(options)):
        rows = [targets[number].nonzero().flatten() for number in group.members]
        for number, result in zip(group.members, maps_of(model, group, rows, [options.reading])[0][0], strict=True):
            found[number] = result
    return found


def best_masks(cams: list[CamResult], images: TaggedImages) -> tuple[float, list[np.ndarray], list[float]]:
    """The best threshold, the masks at it, and each picture's mean IoU."""
    tally = Tally(images)
    truths = [sample.read_mask() for sample in images]
    for number, (truth, cam) in enumerate(zip(truths, cams, strict=True)):
        tally.update(number, truth, cam)
    best = tally.sweep.best()
    masks = [cam.to_mask(background=best).numpy() for cam in cams]
    scores = []
    for truth, mask in zip(truths, masks, strict=True):
        confusion = ConfusionMatrix(len(images.classes) + 1)
        confusion.update(truth, mask)
        scores.append(float(confusion.compute()["miou"]))
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


def draw_scores(images: TaggedImages, scores: dict[str, list[float]], path: Path) -> None:
    """Draw the mean IoU of every picture, one arm against the other; colours are tags, crosses have several tags."""
    import matplotlib

    matplotlib.use("svg")
    import matplotlib.pyplot as plt

    (first, x), (second, y) = scores.items()
    figure, axis = plt.subplots(figsize=(4.6, 4.6))
    axis.plot([0, 100], [0, 100], color="black", linewidth=0.6)
    for number, name in enumerate(images.classes):
        for marker, several in (("o", False), ("x", True)):
            shown = [
                place
                for place, sample in enumerate(images)
                if sample.labels and sample.labels[0] == number and (len(sample.labels) > 1) == several
            ]
            points = [[100 * values[place] for place in shown] for values in (x, y)]
            label = None if several else name
            axis.plot(*points, marker, color=f"C{number}", label=label, markersize=4, alpha=0.7)
    axis.set_xlabel(f"{first}: mean IoU of a picture, percent", fontsize=8)
    axis.set_ylabel(f"{second}: mean IoU of a picture, percent", fontsize=8)
    axis.tick_params(labelsize=8)
    axis.set_xlim(0, 100)
    axis.set_ylim(0, 100)
    axis.set_aspect("equal")
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(fontsize=8, frameon=False, loc="upper left")
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})


def compare(cams: dict[str, list[CamResult]], images: TaggedImages, rows: int, out: Path) -> None:
    """Draw the pictures on which the second arm loses or gains most against the first, and print gains by tag."""
    columns, scores = {}, []
    for arm, own in cams.items():
        best, masks, own_scores = best_masks(own, images)
        columns[f"{arm}, threshold {best:g}"] = masks
        scores.append(own_scores)
    gains = np.subtract(scores[1], scores[0])
    order = np.argsort(gains)
    name = images.name.partition("/")[0]
    for kind, chosen in (("losses", order[:rows]), ("gains", order[::-1][:rows])):
        notes = [f"{images[number].image_id}: {100 * gains[number]:+.0f} points" for number in chosen]
        draw(images, columns, list(chosen), notes, out / f"{name}_{kind}.png")
        print(out / f"{name}_{kind}.png")
    draw_scores(images, dict(zip(cams, scores, strict=True)), out / f"{name}_scores.svg")
    print(out / f"{name}_scores.svg")
    print(f"all: {100 * gains.mean():+.1f} points, standard deviation {100 * gains.std():.1f}, {len(gains)} pictures")
    targets = images.targets().bool().numpy()
    for tag, tagged in zip(images.classes, targets.T, strict=True):
        if tagged.any():
            own_gains = 100 * gains[tagged]
            error = own_gains.std() / len(own_gains) ** 0.5
            print(f"{tag}: {own_gains.mean():+.1f} points, standard error {error:.1f}, {len(own_gains)} pictures")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("weights", type=Path)
    parser.add_argument("--arms", nargs=2, default=["baseline", "progressive"])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--lr", type=float, default=1e-4)
    parser.add_argument("--size", type=int, nargs=2, default=(256, 192))
    parser.add_argument("--scales", type=float, nargs="+", default=[1.0, 1.5])
    parser.add_argument("--own-views", action="store_true", help="the cell that trained on a pool of its own")
    parser.add_argument("--images", default=":", help="these pictures of val: START:STOP")
    parser.add_argument("--reading", default="whole", choices=READINGS)
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--work", type=Path, default=Path("runs/study"))
    parser.add_argument("--out", type=Path, default=Path("runs/study/sheets"))
    options = parser.parse_args()
    images = scored_part(options)
    compare({arm: cams_of(options, arm, images) for arm in options.arms}, images, options.rows, options.out)


if __name__ == "__main__":
    main()
