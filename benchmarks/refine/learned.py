"""The gain of random walks on learned affinities, beside a random walk on colours and the CAMs themselves.

    python benchmarks/refine/learned.py DATASET --train-cams FOLDER --cams FOLDER --model FILE --out results.csv

Edges (as in IRN) and features (as in PSA) are trained on confident labels of the training CAMs, on the frozen backbone
of the model that made the CAMs, as `ppl run` does. On each of them, the maps are propagated by 16, 64 and 256 steps as
in PSA, with the background as one of the labels, and by 256 steps as in IRN, without the background, which gets the
constant score 0.25. `train_cpu_s` is the CPU time of the training without the labels.
"""

from __future__ import annotations

import argparse
import csv
import shutil
import time
from pathlib import Path

import numpy as np
import torch
from which import evaluate

from ppl.data import open_dataset
from ppl.models import load_model
from ppl.refine import RefineJob, parse_refiners
from ppl.refine.affinity import AffinityConfig, AffinityNetwork, confident_label_folder, learn_affinity


def evenly(items: list, count: int | None) -> list:
    if not count or count >= len(items):
        return items
    return [items[i] for i in np.linspace(0, len(items) - 1, count).astype(int)]


def with_cams(folder: Path, split: str, cams: Path, count: int | None) -> list:
    samples = [sample for sample in open_dataset(folder, split) if (cams / f"{sample.image_id}.npz").is_file()]
    return evenly(samples, count)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--train-cams", type=Path, required=True)
    parser.add_argument("--cams", type=Path, required=True, help="of val")
    parser.add_argument("--model", type=Path, required=True, help="what made the CAMs")
    parser.add_argument("--backbone", default="mobilenetv2_100", help="its timm name")
    parser.add_argument("--background", default="auto", help="score for scoring the CAMs, or auto")
    parser.add_argument("--confident", type=float, nargs=2, default=[0.30, 0.05], help="foreground and background")
    parser.add_argument("--kinds", nargs="+", default=["edges", "features"], choices=["edges", "features"])
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--crop", type=int, default=192)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--train-images", type=int)
    parser.add_argument("--limit", type=int, help="so many images of val")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--work", type=Path, default=Path("learned_affinity"), help="for labels and networks")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()

    torch.set_num_threads(1)
    classes = len(open_dataset(options.dataset, "val").classes) + 1
    val = with_cams(options.dataset, "val", options.cams, options.limit)
    train = with_cams(options.dataset, "train", options.train_cams, options.train_images)
    jobs = [RefineJob(one.image_id, one.image, options.train_cams / f"{one.image_id}.npz") for one in train]
    config = AffinityConfig(epochs=options.epochs, crop=options.crop, batch_size=options.batch)
    scores = {"foreground": options.confident[0], "background": options.confident[1]}
    confident_label_folder(jobs, options.work / "labels", **scores, num_workers=options.jobs)

    walks: list[tuple[str, str, object]] = [("CAM", "", None), ("random_walk on colours", "", "random_walk")]
    for kind in options.kinds:
        out = options.work / kind
        shutil.copytree(options.work / "labels", out / "labels", dirs_exist_ok=True)
        network = AffinityNetwork(options.backbone, kind=kind, weights=load_model(options.model).backbone.state_dict())
        start = time.process_time()
        summary = learn_affinity(jobs, out, network, config, **scores, num_workers=options.jobs)
        trained = f"{time.process_time() - start:.0f}"
        print(kind, "losses", summary.losses, flush=True)
        ways = [(f"{steps} steps", {"num_steps": steps}) for steps in (16, 64, 256)]
        ways.append(("IRN's way", {"background": 0.25}))
        for name, more in ways:
            walk = {"random_walk": {"affinity": str(summary.path), **more}}
            walks.append((f"random_walk on learned {kind}, {name}", trained, walk))

    source = f"cam:{options.background}"
    found = evaluate(val, source, [parse_refiners(recipe) for *_, recipe in walks], options.cams, classes, options.jobs)
    rows = []
    for (name, trained, _), (miou, seconds) in zip(walks, found, strict=True):
        rows.append(
            {
                "walk": name,
                "background": options.background,
                "train_images": str(len(train)) if trained else "",
                "train_cpu_s": trained,
                "val_images": str(len(val)),
                "miou": f"{miou:.2f}",
                "gain": f"{miou - found[0][0]:+.2f}",
                "cpu_s_per_image": f"{seconds:.3f}",
            }
        )
        print(rows[-1], flush=True)
    if options.out:
        with options.out.open("w", newline="") as handle:
            writer = csv.DictWriter(handle, rows[0])
            writer.writeheader()
            writer.writerows(rows)


if __name__ == "__main__":
    main()
