"""What each way to deal with wrong labels gains, for one segmentation network on one set of pseudo-masks.

    python benchmarks/segment/noise.py DATASET WEIGHTS EPOCH.pt --arms default rounds --seeds 0 --work FOLDER

Pseudo-masks are those that the library makes of the tags with the classifier EPOCH.pt (see
`benchmarks/study/train_cells.py`), with the confidence of their labels. All arms see the same number of crops: two
rounds have half of the epochs each. `masks_sbd` learns from true masks instead, which is the upper bound. One row for
each network: mIoU of `--split` without tags, with the tags known, and of the masks that it learned from.
"""

from __future__ import annotations

import argparse
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "study"))

from score_maps import append, is_known  # noqa: E402
from segmenters import score, score_masks  # noqa: E402
from train_cells import backbone_of, load_cell, part  # noqa: E402

from ppl.cam import CamConfig, iter_generate  # noqa: E402
from ppl.data import TaggedImages, open_dataset  # noqa: E402
from ppl.engine.random_state import seeded  # noqa: E402
from ppl.io import write_mask  # noqa: E402
from ppl.io.confidence import write_confidence  # noqa: E402
from ppl.pipeline.rounds import fit_rounds  # noqa: E402
from ppl.refine import apply_refiners, parse_refiners  # noqa: E402
from ppl.segment import SegmentConfig, Segmenter, create_segmenter, load, with_masks  # noqa: E402

ARMS: dict[str, dict[str, Any]] = {
    "default": {},
    "masks_sbd": {},
    "balanced": {"balanced": True},
    "smoothing_0.1": {"label_smoothing": 0.1},
    "smoothing_0.4": {"label_smoothing": 0.4},
    "class_loss": {"class_loss": 0.1},
    "confidence": {"confidence": True},
    "min_confidence_0.7": {"min_confidence": 0.7},
    "min_confidence_0.95": {"min_confidence": 0.95},
    "rounds": {"rounds": 2},
}
"""Settings of the segmenter by the name of an arm."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("weights", type=Path, help="BACKBONE_imagenet.safetensors, from which the encoder starts")
    parser.add_argument("cell", type=Path, help="weights of one epoch of a baseline, as train_cells.py keeps them")
    parser.add_argument("--arms", nargs="+", default=list(ARMS), choices=list(ARMS), metavar="ARM")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--images", default="::5", help="START:STOP:STEP of the training images")
    parser.add_argument("--split", default="val")
    parser.add_argument("--scales", type=float, nargs="+", default=CamConfig().scales)
    parser.add_argument("--refine", default="crf: deeplab")
    parser.add_argument("--work", type=Path, required=True, help="folder of masks and networks")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "noise.csv")
    options = parser.parse_args()
    torch.set_num_threads(1)
    truth = options.data / "masks_sbd"
    images = with_masks(part(open_dataset(options.data, "train"), options.images), truth)
    scored = open_dataset(options.data, options.split)
    masks = options.work / f"masks-{options.data.name}-{options.cell.parent.name}-{options.cell.stem}"
    for seed in options.seeds:
        for arm in options.arms:
            row = {"data": options.data.name, "images": len(images), "cell": options.cell.parent.name}
            row |= {"epochs": options.epochs, "arm": arm, "seed": seed, "split": options.split}
            if is_known(options.out, {key: str(value) for key, value in row.items()}):
                continue
            if arm != "masks_sbd":
                make_masks(images, masks, options)
            train = with_masks(images, truth if arm == "masks_sbd" else masks)
            started = time.perf_counter()
            folder = options.work / f"{arm}-{len(train)}-e{options.epochs}-s{seed}"
            model = train_network(train, ARMS[arm], seed, folder, options)
            seconds = round(time.perf_counter() - started)
            row |= {"masks_miou": score_masks(train, truth)} | score(model, scored) | {"seconds": seconds}
            print(row, flush=True)
            append(options.out, row)


def make_masks(images: TaggedImages, folder: Path, options: argparse.Namespace) -> None:
    """Write the refined masks that the classifier makes of the tags, and the confidence of their labels."""
    missing = [sample for sample in images if not (folder / f"{sample.image_id}.png").exists()]
    model = load_cell(options.cell, options.weights, "baseline", len(images.classes))
    results = iter_generate(
        model,
        [sample.image for sample in missing],
        [list(sample.labels) for sample in missing],
        scales=options.scales,
        method="propagated_cam",
    )
    refiners = parse_refiners(options.refine)
    for sample, result in zip(missing, results, strict=True):
        probs = apply_refiners(refiners, np.asarray(sample.read_image()), result.to_probs("auto").numpy())
        labels = np.concatenate([[0], result.classes.numpy() + 1])
        path = folder / f"{sample.image_id}.png"
        write_confidence(path, probs)
        write_mask(path, labels[probs.argmax(axis=0)])  # last: a mask that exists is finished


def train_network(
    train: TaggedImages, arm: dict[str, Any], seed: int, folder: Path, options: argparse.Namespace
) -> Segmenter:
    budget = {"decoder": "fpn", "crop": 224, "seed": seed, "num_workers": 0}
    config = SegmentConfig(**budget, **arm, epochs=options.epochs // arm.get("rounds", 1))
    create = partial(create_network, len(train.classes), config, options.weights)
    summary = fit_rounds(create, train, None, config, folder, device="cpu", num_workers=1, progress=False)
    return load(summary.last_path)


def create_network(num_classes: int, config: SegmentConfig, weights: Path) -> Segmenter:
    with seeded(config.seed):
        return create_segmenter(backbone_of(weights), num_classes, decoder=config.decoder, checkpoint_path=weights)


if __name__ == "__main__":
    main()
