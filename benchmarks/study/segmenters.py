"""Train segmentation networks on pseudo-masks and on true masks of the same images, and score them on other images.

    python benchmarks/study/segmenters.py DATASET WEIGHTS EPOCH.pt --masks pseudo masks_sbd --seeds 0 1 2 --work FOLDER

Pseudo-masks are those that the library makes of the tags with the classifier EPOCH.pt (see train_cells.py). True masks
come from the folder `masks_sbd` of the data set: with them the network is the upper bound. All networks train on images
with true masks. `--set KEY=VALUE` changes the segmenter's settings. One row for each network: mIoU of `--split`
without tags, with the tags known, and of the training masks themselves.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from score_maps import append, is_known, percent
from train_cells import backbone_of, load_cell, part

from ppl.cam import CamConfig, iter_generate
from ppl.data import TaggedImages, open_dataset
from ppl.engine.random_state import seeded
from ppl.io import read_mask, write_mask
from ppl.metrics import ConfusionMatrix
from ppl.refine import apply_refiners, parse_refiners
from ppl.segment import SegmentConfig, Segmenter, create_segmenter, fit, iter_predict, with_masks

HERE = Path(__file__).parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("weights", type=Path, help="BACKBONE_imagenet.safetensors, from which the encoder starts")
    parser.add_argument("cell", type=Path, help="weights of one epoch of a baseline, as train_cells.py keeps them")
    parser.add_argument("--masks", nargs="+", default=["pseudo", "masks_sbd"], help="pseudo or a folder")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--images", default="::5", help="START:STOP:STEP of the training images")
    parser.add_argument("--split", default="val")
    parser.add_argument("--method", default="propagated_cam")
    parser.add_argument("--scales", type=float, nargs="+", default=CamConfig().scales)
    parser.add_argument("--refine", default="crf: deeplab")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="settings of the segmenter")
    parser.add_argument("--work", type=Path, required=True, help="folder of masks and networks")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "segmenters.csv")
    options = parser.parse_args()
    torch.set_num_threads(1)
    truth = options.data / "masks_sbd"
    images = with_masks(part(open_dataset(options.data, "train"), options.images), truth)
    scored = open_dataset(options.data, options.split)
    changes = {key: yaml.safe_load(value) for key, value in (words.split("=", 1) for words in options.set)}
    for seed in options.seeds:
        for source in options.masks:
            row = {
                "data": options.data.name,
                "images": len(images),
                "masks": source,
                "made_by": masks_name(options) if source == "pseudo" else "",
                "settings": " ".join(options.set),
                "seed": seed,
                "split": options.split,
            }
            if is_known(options.out, row):
                continue
            folder = make_masks(images, options) if source == "pseudo" else options.data / source
            train = with_masks(images, folder)
            config = SegmentConfig(
                **{"decoder": "fpn", "crop": 224, "epochs": 6, "seed": seed, "num_workers": 0} | changes
            )
            started = time.perf_counter()
            name = "-".join([source, row["made_by"], str(len(train)), *options.set, f"s{seed}"])
            model = train_network(train, config, options, name)
            row |= {"trained_on": len(train), "masks_miou": score_masks(train, truth)}
            row |= score(model, scored) | {"seconds": round(time.perf_counter() - started)}
            print(row, flush=True)
            append(options.out, row)


def masks_name(options: argparse.Namespace) -> str:
    """Name all that decides the pseudo-masks: the classifier, the method and scales of the maps, and the refiners."""
    scales = "_".join(f"{scale:g}" for scale in options.scales)
    refiners = options.refine.replace(": ", "_").replace(", ", "-")
    return f"{options.cell.parent.name}-{options.cell.stem}-{options.method}-{scales}-{refiners}"


def make_masks(images: TaggedImages, options: argparse.Namespace) -> Path:
    """Return the folder of refined masks that the classifier makes of the images and their tags."""
    folder = options.work / "masks" / masks_name(options)
    missing = [sample for sample in images if not (folder / f"{sample.image_id}.png").exists()]
    model = load_cell(options.cell, options.weights, "baseline", len(images.classes))
    results = iter_generate(
        model,
        [sample.image for sample in missing],
        [list(sample.labels) for sample in missing],
        scales=options.scales,
        method=options.method,
        amp=True,
    )
    refiners = parse_refiners(options.refine)
    for sample, result in zip(missing, results, strict=True):
        probs = apply_refiners(refiners, np.asarray(sample.read_image()), result.to_probs("auto").numpy())
        labels = np.concatenate([[0], result.classes.numpy() + 1])
        write_mask(folder / f"{sample.image_id}.png", labels[probs.argmax(axis=0)])
    return folder


def train_network(train: TaggedImages, config: SegmentConfig, options: argparse.Namespace, name: str) -> Segmenter:
    with seeded(config.seed):
        model = create_segmenter(
            backbone_of(options.weights), len(train.classes), decoder=config.decoder, checkpoint_path=options.weights
        )
    fit(model, train, None, config, options.work / "segmenters" / name, progress=False, device="cpu")
    return model.eval()


def score_masks(train: TaggedImages, truth: Path) -> float:
    """Score the masks that a network was trained on against true masks, in percent."""
    matrix = ConfusionMatrix(len(train.classes) + 1)
    for sample in train:
        matrix.update(read_mask(truth / f"{sample.image_id}.png"), sample.read_mask())
    return percent(matrix.compute()["miou"])


def score(model: Segmenter, images: TaggedImages) -> dict[str, Any]:
    """Score the network's predictions without tags and cut to the tags, in percent."""
    found = {}
    tags = [list(sample.labels) for sample in images]
    for name, labels in {"no_tags": None, "tags": tags}.items():
        matrix = ConfusionMatrix(len(images.classes) + 1)
        results = iter_predict(model, [sample.image for sample in images], labels)
        for sample, result in zip(images, results, strict=True):
            matrix.update(sample.read_mask(), result.mask)
        found[name] = percent(matrix.compute()["miou"])
    return found


if __name__ == "__main__":
    main()
