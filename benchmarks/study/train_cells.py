"""Train cells of the study and keep the weights of every epoch.

    python benchmarks/study/train_cells.py DATASET WEIGHTS --arms baseline control --seeds 0 1 2 --work FOLDER

A cell is one arm, seed and data set. The front of the network does not learn, so its maps of the augmented images are
computed once for all cells (`features.py`). A cell whose last epoch is there is passed over.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from arms import ARMS
from cell import Budget, train
from features import load_network, training_pool
from torch import nn

from ppl.backbones import data_config
from ppl.data import TaggedImages, open_dataset
from ppl.io import atomic_write
from ppl.models import PPLNet, create_model

TAIL_KEYS = {"group3": "blocks.3", "group4": "blocks.4", "group5": "blocks.5", "group6": "blocks.6"} | {
    "head.0": "conv_head",
    "head.1": "bn2",
}
"""Modules of `features.Tail`, and their names in timm's whole network."""

WEIGHT_DECAY = {"adamw": Budget.weight_decay, "sgd": 1e-4}
"""Weight decay by optimizer; for SGD that of IRN, with a momentum of 0.9."""


def arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("weights", type=Path, help="BACKBONE_imagenet.safetensors, in timm's keys")
    parser.add_argument("--arms", nargs="+", default=["baseline"], choices=list(ARMS), metavar="ARM")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--optimizer", choices=list(WEIGHT_DECAY), default="adamw")
    parser.add_argument("--lr", type=float, default=1e-4)
    parser.add_argument("--size", type=int, nargs=2, default=(256, 256), help="height and width of the training crops")
    parser.add_argument("--images", default="::", help="START:STOP:STEP of the training images")
    parser.add_argument("--work", type=Path, required=True, help="folder of the front's maps and of the weights")
    return parser.parse_args(words)


def main() -> None:
    options = arguments()
    torch.set_num_threads(1)
    for seed in options.seeds:
        for arm in options.arms:
            run_cell(arm, seed, options)


def cell_name(data: str, arm: str, seed: int, options: argparse.Namespace) -> str:
    """Return the name of a cell; that of the usual optimizer is left out."""
    backbone, rate = backbone_of(options.weights), f"lr{options.lr:g}"
    if options.optimizer != Budget.optimizer:
        rate += f"-{options.optimizer}"
    height, width = options.size
    return f"{data}-{backbone}-{arm}-e{options.epochs}-{rate}-{height}x{width}-s{seed}"


def part(images: TaggedImages, words: str) -> TaggedImages:
    """Return the images of a slice that is written START:STOP:STEP."""
    return images[slice(*(int(word) if word else None for word in words.split(":")))]


def backbone_of(weights: Path) -> str:
    """Return timm's name of the network that a file of weights is named after."""
    return weights.stem.removesuffix("_imagenet")


def run_cell(arm: str, seed: int, options: argparse.Namespace) -> None:
    backbone, size = backbone_of(options.weights), tuple(options.size)
    network = load_network(options.weights, Budget.output_stride)
    images = part(open_dataset(options.data, "train"), options.images)
    data = f"{options.data.name}-{len(images)}"
    name = cell_name(data, arm, seed, options)
    folder = options.work / "cells" / name
    if (folder / f"epoch{options.epochs}.pt").exists():
        return
    pool = training_pool(
        images,
        network,
        data_config(network),
        size,
        options.epochs,
        options.work / "pools" / f"{data}-{backbone}-{options.epochs}-{size[0]}x{size[1]}",
    )
    started = time.perf_counter()

    def keep(model: nn.Module, epoch: int) -> None:
        with atomic_write(folder / f"epoch{epoch}.pt", "wb") as file:
            torch.save({"model": model.state_dict(), "seconds": time.perf_counter() - started}, file)

    folder.mkdir(parents=True, exist_ok=True)
    train(
        ARMS[arm],
        Budget(options.epochs, options.lr, weight_decay=WEIGHT_DECAY[options.optimizer], optimizer=options.optimizer),
        pool,
        options.weights,
        seed,
        lambda line: print(name, line, flush=True),
        torch.device("cpu"),
        keep,
    )


def load_cell(path: Path | None, weights: Path, arm: str, num_classes: int) -> PPLNet:
    """Return the whole network of a trained cell: the front from `weights`, the rest from `path` if that is given."""
    own = ARMS[arm]
    names = {"front": "blocks.2"} | TAIL_KEYS
    model = create_model(
        backbone_of(weights),
        num_classes,
        mode=own.mode,
        cuts=[names[cut] for cut in own.cuts] or None,
        grids=own.grids if isinstance(own.grids, int) else list(own.grids),
        padding=own.padding,
        pooling=own.pooling,
        checkpoint_path=weights,
        output_stride=Budget.output_stride,
    )
    if path is not None:
        trained = {_whole_key(key): value for key, value in torch.load(path, weights_only=True)["model"].items()}
        model.load_state_dict(model.state_dict() | trained)
    model.set_phase(model.num_phases - 1)
    return model.eval()


def _whole_key(key: str) -> str:
    """Return the name that a weight of the tail has in the whole network."""
    for tail, whole in TAIL_KEYS.items():
        if key.startswith(f"backbone.{tail}."):
            return f"backbone.{whole}.{key.removeprefix(f'backbone.{tail}.')}"
    return key


if __name__ == "__main__":
    main()
