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
from trained_cells import backbone_of, cell_name, part

from ppl.backbones import data_config
from ppl.data import open_dataset
from ppl.io import atomic_write

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


if __name__ == "__main__":
    main()
