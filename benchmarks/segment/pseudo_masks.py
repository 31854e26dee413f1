"""Train segmentation networks on the masks of a run and on true masks of the same images, and score both.

    ppl run RECIPE --set data.root=DATASET --set "data.splits=[SPLIT]" --set segment=null --out RUN
    python benchmarks/segment/pseudo_masks.py DATASET WEIGHTS RUN SPLIT --arms default true --seeds 0 1 2 --work FOLDER

SPLIT lists training images of which most have a true mask in `DATASET/masks_sbd`. All networks train on the images that
have one. The arm `true` learns from these true masks, which is the upper bound. Every other arm learns from the refined
maps of RUN, and names one way to deal with their wrong labels. All arms see the same number of crops: two rounds have
half of the epochs each. One row for each network: mIoU on the images of `--scored` without tags and with known tags,
and mIoU of the masks that the network learned from.
"""

from __future__ import annotations

import argparse
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "study"))

from score_maps import append, is_known, percent  # noqa: E402
from trained_cells import backbone_of  # noqa: E402

from ppl.data import TaggedImages, open_dataset  # noqa: E402
from ppl.engine.random_state import seeded  # noqa: E402
from ppl.io import read_mask  # noqa: E402
from ppl.metrics import ConfusionMatrix  # noqa: E402
from ppl.pipeline.learned import learned_files, with_networks  # noqa: E402
from ppl.pipeline.recipe_file import load_recipe  # noqa: E402
from ppl.pipeline.rounds import fit_rounds  # noqa: E402
from ppl.pipeline.run_folder import RunFolder  # noqa: E402
from ppl.refine import RefineJob, parse_refiners, refine_folder  # noqa: E402
from ppl.segment import SegmentConfig, Segmenter, create_segmenter, iter_predict, load, with_masks  # noqa: E402

ARMS: dict[str, dict[str, Any]] = {
    "default": {},
    "true": {},
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
    parser.add_argument("run", type=Path, help="a run folder with the maps of the training images")
    parser.add_argument("train", help="the split of these images")
    parser.add_argument("--arms", nargs="+", default=["default", "true"], choices=list(ARMS), metavar="ARM")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--decoder", default="fpn")
    parser.add_argument("--crop", type=int, default=224)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--scored", default="val", help="the split with masks on which the networks are scored")
    parser.add_argument("--work", type=Path, required=True, help="folder of masks and networks")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "pseudo_masks.csv")
    options = parser.parse_args()
    torch.set_num_threads(1)
    truth = options.data / "masks_sbd"
    images = with_masks(open_dataset(options.data, options.train), truth)
    for seed in options.seeds:
        for arm in options.arms:
            row = {"data": options.data.name, "run": options.run.name, "images": len(images), "arm": arm}
            row |= {key: getattr(options, key) for key in ("decoder", "crop", "epochs", "scored")} | {"seed": seed}
            if is_known(options.out, row):
                continue
            masks = truth if arm == "true" else make_masks(images, options)
            train = with_masks(images, masks)
            started = time.perf_counter()
            model = train_network(train, arm, seed, options)
            seconds = round(time.perf_counter() - started)
            row |= {"masks_miou": score_masks(train, truth)}
            row |= score(model, open_dataset(options.data, options.scored)) | {"seconds": seconds}
            print(row, flush=True)
            append(options.out, row)


def make_masks(images: TaggedImages, options: argparse.Namespace) -> Path:
    """Return the folder of the masks that the run's refiners make, with the confidence of their labels."""
    run, out = RunFolder(options.run), options.work / f"masks-{options.run.name}-{options.train}"
    recipe = load_recipe(run.recipe)
    cams = run.cams(options.train)
    jobs = [RefineJob(image.image_id, image.picture, cams / f"{image.image_id}.npz") for image in images]
    refiners = with_networks(parse_refiners(recipe.refine), learned_files(recipe, run))
    refine_folder(jobs, out, refiners, background=recipe.cam.background, keep="confidence", num_workers=1)
    return out


def train_network(train: TaggedImages, arm: str, seed: int, options: argparse.Namespace) -> Segmenter:
    changes = ARMS[arm]
    epochs, rest = divmod(options.epochs, changes.get("rounds", 1))
    if rest:
        raise SystemExit(f"--epochs {options.epochs} cannot be shared by {changes['rounds']} rounds")
    common = {"decoder": options.decoder, "crop": options.crop, "seed": seed, "num_workers": 0}
    config = SegmentConfig(**common, **changes, epochs=epochs)
    create = partial(create_network, len(train.classes), config, options.weights)
    folder = options.work / f"{arm}-{options.decoder}-{options.crop}-{len(train)}-e{options.epochs}-s{seed}"
    summary = fit_rounds(create, train, None, config, folder, device="cpu", num_workers=1, progress=False)
    return load(summary.last_path)


def create_network(num_classes: int, config: SegmentConfig, weights: Path) -> Segmenter:
    with seeded(config.seed):
        return create_segmenter(backbone_of(weights), num_classes, decoder=config.decoder, checkpoint_path=weights)


def score_masks(train: TaggedImages, truth: Path) -> float:
    """Score the masks that a network was trained on against true masks, in percent."""
    matrix = ConfusionMatrix(len(train.classes) + 1)
    for sample in train:
        matrix.update(read_mask(truth / f"{sample.image_id}.png"), sample.read_mask())
    return percent(matrix.compute()["miou"])


def score(model: Segmenter, images: TaggedImages) -> dict[str, float]:
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
