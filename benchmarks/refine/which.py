"""The gain of each refiner: mean IoU before and after, with its CPU time.

    python benchmarks/refine/which.py DATASET --split val --corrupt blur:8 stride:16 --limit 60 --out results.csv
    python benchmarks/refine/which.py DATASET --split val --cams RUN/cams/val --background 0.2 0.3 --out results.csv

Without `--cams`, the refiners start from corrupted ground-truth masks: `blur:S` blurs the masks by a Gaussian of S
pixels, `stride:N` averages them over cells of N pixels and resizes the cells to the image, like a network's output.
The labels of each image are known, as for a method that starts from tags. Seconds are CPU time of the thread that
refines one image.
"""

from __future__ import annotations

import argparse
import csv
import time
from pathlib import Path

import joblib
import numpy as np
import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table
from scipy import ndimage

from ppl.data import open_dataset
from ppl.io import read_image, read_mask
from ppl.metrics import ConfusionMatrix
from ppl.refine import PRESETS, apply_refiners, parse_refiners
from ppl.refine.jobs import RefineJob, read_probs

REFINERS = [
    "none",
    *(f"crf: {name}" for name in PRESETS),
    "pixel_adaptive",
    "pixel_adaptive: {iterations: 5, dilations: [1, 2, 4]}",
    "guided_filter: 4",
    "guided_filter: 8",
    "superpixels: slic",
    "superpixels: felzenszwalb",
    "random_walk",
    "crf: irn, pixel_adaptive: {iterations: 5, dilations: [1, 2, 4]}",
    "crf: {preset: psa, scale_factor: 2}",
    "crf: {preset: irn, scale_factor: 2}",
    "crf: {preset: irn, scale_factor: 2, iterations: 1}",
    "crf: {bilateral_sxy: 20, bilateral_srgb: 5, bilateral_compat: 3, gaussian_compat: 1, iterations: 5}",
    "pixel_adaptive: {iterations: 5, dilations: [1, 2, 4]}, crf: puzzle",
]


def one_hot(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return probabilities of the labels in a mask, background first, and the labels."""
    labels = np.union1d([0], np.setdiff1d(mask, [255]))
    maps = (mask[None] == labels[:, None, None]).astype(np.float32)
    maps[0] += mask == 255
    return maps, labels


def corrupt(maps: np.ndarray, how: str) -> np.ndarray:
    kind, _, amount = how.partition(":")
    if kind == "blur":
        return ndimage.gaussian_filter(maps, (0, float(amount), float(amount)), mode="nearest")
    height, width = maps.shape[1:]
    cells = (-(-height // int(amount)), -(-width // int(amount)))
    small = F.interpolate(torch.from_numpy(maps)[None], cells, mode="area")
    return F.interpolate(small, (height, width), mode="bilinear", align_corners=False)[0].numpy()


def start_of(sample, source: str, cams: Path | None) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return the image, the ground truth, the probabilities before refinement and the label of each channel."""
    image, target = np.asarray(read_image(sample.image)), read_mask(sample.mask)
    if cams is None:
        maps, labels = one_hot(target)
        return image, target, corrupt(maps, source), labels
    rule = source.partition(":")[2]
    job = RefineJob(sample.image_id, sample.image, cams / f"{sample.image_id}.npz")
    image, probs, labels = read_probs(job, "auto" if rule == "auto" else float(rule))
    return image, target, probs, labels


def evaluate(samples, source, lists, cams, num_classes, n_jobs):
    """Return mean IoU in percent and median CPU seconds of each list of refiners; every image is read once."""

    def one(sample):
        image, target, probs, labels = start_of(sample, source, cams)
        results = []
        for refiners in lists:
            start = time.thread_time()
            refined = apply_refiners(refiners, image, probs)
            seconds = time.thread_time() - start
            results.append((labels[refined.argmax(axis=0)].astype(np.uint8), seconds))
        return target, results

    matrices, times = [ConfusionMatrix(num_classes) for _ in lists], [[] for _ in lists]
    for target, results in joblib.Parallel(n_jobs, prefer="threads", return_as="generator")(
        joblib.delayed(one)(sample) for sample in samples
    ):
        for (prediction, seconds), matrix, spent in zip(results, matrices, times, strict=True):
            matrix.update(target, prediction)
            spent.append(seconds)
    return [
        (100 * float(matrix.compute()["miou"]), float(np.median(spent)))
        for matrix, spent in zip(matrices, times, strict=True)
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--split", default="val")
    parser.add_argument("--cams", type=Path, help="folder of .npz files; default: corrupted masks")
    parser.add_argument("--background", nargs="+", default=["auto"], help="background rules, with --cams")
    parser.add_argument("--corrupt", nargs="+", default=["blur:8", "stride:16"])
    parser.add_argument("--refiners", nargs="+", default=REFINERS, help="lists of refiners, each as in a recipe")
    parser.add_argument("--limit", type=int, help="number of images, evenly spread over the split")
    parser.add_argument("--jobs", type=int, default=-1)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()

    chosen = [(name, parse_refiners(None if name == "none" else name)) for name in arguments.refiners]
    dataset = open_dataset(arguments.dataset, arguments.split)
    samples = [sample for sample in dataset if sample.mask is not None]
    if arguments.cams is not None:
        samples = [sample for sample in samples if (arguments.cams / f"{sample.image_id}.npz").is_file()]
    if arguments.limit and arguments.limit < len(samples):
        samples = [samples[i] for i in np.linspace(0, len(samples) - 1, arguments.limit).astype(int)]
    torch.set_num_threads(1)
    sources = [f"cam:{score}" for score in arguments.background] if arguments.cams else arguments.corrupt

    rows = []
    classes = len(dataset.classes) + 1
    lists = [(), *(refiners for _, refiners in chosen)]
    for source in sources:
        evaluate(samples[:1], source, lists, arguments.cams, classes, 1)  # compiles
        (before, _), *refined = evaluate(samples, source, lists, arguments.cams, classes, arguments.jobs)
        for (name, _), (after, seconds) in zip(chosen, refined, strict=True):
            rows.append(
                {
                    "start": source,
                    "images": str(len(samples)),
                    "refine": name,
                    "miou_before": f"{before:.2f}",
                    "miou_after": f"{after:.2f}",
                    "gain": f"{after - before:+.2f}",
                    "cpu_s_per_image": f"{seconds:.3f}",
                }
            )
        if arguments.out:
            arguments.out.parent.mkdir(parents=True, exist_ok=True)
            with arguments.out.open("w", newline="") as handle:
                writer = csv.DictWriter(handle, rows[0])
                writer.writeheader()
                writer.writerows(rows)
    table = Table(title=f"{arguments.dataset.name} {arguments.split}, {len(samples)} images")
    for name in rows[0]:
        table.add_column(name)
    for row in rows:
        table.add_row(*row.values())
    Console().print(table)


if __name__ == "__main__":
    main()
