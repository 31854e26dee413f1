"""Run cells of the study: arms x seeds on one data set, each one row per way of reading the map in a CSV file.

    python benchmarks/study/run.py DATASET WEIGHTS --arms baseline control progressive --seeds 0 1 2

DATASET is a folder with `train`, `val` and masks of `val`; WEIGHTS are ImageNet weights of timm's mobilenetv2_100.
Cells that the CSV holds already are passed over, so a stopped run goes on where it was. Several processes may share
the cells: `--part 0/2` and `--part 1/2`, once the pool of views is there. Kept in `--work`: the front's maps (made
once) and each cell's weights.
"""

from __future__ import annotations

import argparse
import csv
import fcntl
import time
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from arms import ARMS
from cell import Budget, build, train
from features import Group, Pool, load_network, scored_groups, training_pool
from scoring import READINGS, score
from torch import nn

from ppl.backbones import data_config
from ppl.data import TaggedImages, open_dataset
from ppl.io import atomic_write
from ppl.models import PPLNet

HERE = Path(__file__).parent


def arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("weights", type=Path)
    parser.add_argument("--arms", nargs="+", default=list(ARMS), choices=list(ARMS), metavar="ARM")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--lr", type=float, default=1e-4)
    parser.add_argument("--size", type=int, nargs=2, default=(256, 192), help="height and width of the training crops")
    parser.add_argument("--scales", type=float, nargs="+", default=[1.0, 1.5], help="of the scored pictures")
    parser.add_argument("--views", type=int, default=12, help="augmented views of each picture in the pool")
    parser.add_argument("--own-views", action="store_true", help="a pool for each seed, instead of one for all")
    parser.add_argument("--images", default=":", help="score only these pictures of val: START:STOP")
    parser.add_argument(
        "--readings", nargs="+", choices=READINGS, help="what maps to score, instead of all that the arm has"
    )
    parser.add_argument("--part", default="0/1", help="which of the cells: INDEX/COUNT")
    parser.add_argument("--train-only", action="store_true", help="score later: call again without this")
    parser.add_argument("--no-crf", action="store_true", help="leave the scores after the CRF out, which take longest")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", type=torch.device, default="cpu")
    parser.add_argument("--work", type=Path, default=Path("runs/study"))
    parser.add_argument("--out", type=Path, default=HERE / "results" / "cells.csv")
    return parser.parse_args(words)


def main() -> None:
    options = arguments()
    torch.set_num_threads(options.threads)
    part, parts = map(int, options.part.split("/"))
    for arm, seed in [(arm, seed) for seed in options.seeds for arm in options.arms][part::parts]:
        run_cell(arm, seed, options)


def run_cell(arm: str, seed: int, options: argparse.Namespace) -> None:
    """Train and score what the CSV lacks."""
    name, size = options.data.name, tuple(options.size)
    cell = {
        "data": name,
        "arm": arm,
        "seed": seed,
        "epochs": options.epochs,
        "lr": options.lr,
        "size": "x".join(map(str, size)),
        "views": "own" if options.own_views else "shared",
        "scales": " ".join(f"{scale:g}" for scale in options.scales),
        "images": options.images,
    }
    readings = missing(options.readings or readings_of(arm), options.out, cell)
    if not readings and not options.train_only:
        return
    model, seconds = trained(arm, seed, options)
    if options.train_only:
        return
    for row in score(model, groups_of(options), scored_part(options), readings, not options.no_crf):
        append(options.out, cell | {"train_s": round(seconds)} | rounded(row))
        print(arm, seed, summary(row), flush=True)


@cache
def frozen(weights: Path, device: torch.device) -> tuple[nn.Module, dict[str, object]]:
    """The network before training, for its front, and how its input is normalised."""
    network = load_network(weights, Budget.output_stride)
    return network.to(device), data_config(network)


def pool_of(seed: int, options: argparse.Namespace, only: Sequence[int] | None = None) -> Pool:
    """The views that a seed is trained on; `only` says which to make if they are not there."""
    seed, size = seed if options.own_views else 0, tuple(options.size)
    place = pool_place(seed, options)
    network, config = frozen(options.weights, options.device)
    return training_pool(open_dataset(options.data, "train"), network, config, size, options.views, place, seed, only)


def pool_place(seed: int, options: argparse.Namespace) -> Path:
    return options.work / f"{options.data.name}_{options.views}_{'x'.join(map(str, options.size))}_{seed}"


def groups_of(options: argparse.Namespace) -> Iterator[Group]:
    network, config = frozen(options.weights, options.device)
    return scored_groups(scored_part(options), network, config, options.scales, front_file(options))


def trained(arm: str, seed: int, options: argparse.Namespace) -> tuple[PPLNet, float]:
    """The cell's model, from `--work` if it is there, and how many seconds its training took."""
    path = options.work / "weights" / weights_name(options.data.name, arm, options, seed)
    if path.exists():
        model, seconds = kept(arm, seed, len(scored_part(options).classes), options)
        return model.to(options.device), seconds
    pool, budget = pool_of(seed, options), Budget(options.epochs, options.lr)
    started = time.perf_counter()
    model = train(
        ARMS[arm],
        budget,
        pool,
        options.weights,
        seed,
        lambda line: print(arm, seed, line, flush=True),
        options.device,
    )
    seconds = time.perf_counter() - started
    with atomic_write(path, "wb") as file:
        torch.save({"model": model.state_dict(), "seconds": seconds}, file)
    return model, seconds


def kept(
    arm: str, seed: int, classes: int, options: argparse.Namespace, stride: int = Budget.output_stride
) -> tuple[PPLNet, float]:
    """A trained cell's model from `--work`, and how many seconds its training took."""
    file = torch.load(options.work / "weights" / weights_name(options.data.name, arm, options, seed), weights_only=True)
    model = build(ARMS[arm], classes, options.weights, stride)
    model.load_state_dict(file["model"])
    return model.to(memory_format=torch.channels_last).eval(), file["seconds"]


def scored_part(options: argparse.Namespace) -> TaggedImages:
    start, stop = (int(number) if number else None for number in options.images.split(":"))
    return open_dataset(options.data, "val")[start:stop]


def front_file(options: argparse.Namespace) -> Path:
    scales = "_".join(map(str, options.scales))
    return options.work / f"{options.data.name}_val_{options.images.replace(':', '-')}_{scales}.pt"


def weights_name(data: str, arm: str, options: argparse.Namespace, seed: int) -> str:
    views = "_own" if options.own_views else ""
    return f"{data}_{arm}_{options.epochs}_{options.lr:g}_{'x'.join(map(str, options.size))}{views}_{seed}.pt"


def readings_of(arm: str) -> Sequence[str]:
    return READINGS if ARMS[arm].cuts else ("whole", "layercam")


def missing(readings: Sequence[str], path: Path, cell: dict[str, object]) -> list[str]:
    """Those that the CSV does not hold of this cell."""
    if not path.exists():
        return list(readings)
    with path.open() as file:
        rows = [row for row in csv.DictReader(file) if all(row[key] == str(value) for key, value in cell.items())]
    return [reading for reading in readings if reading not in {row["reading"] for row in rows}]


def rounded(row: dict[str, Any]) -> dict[str, Any]:
    return {key: value if isinstance(value, str) else round(value, 3) for key, value in row.items()}


def summary(row: dict[str, Any]) -> dict[str, Any]:
    return rounded({key: row[key] for key in ("reading", "map", "miou_auto", "miou_best")})


def append(path: Path, row: dict[str, object]) -> None:
    """Add a row; classes differ from data set to data set, so their columns are one text."""
    fixed = {key: value for key, value in row.items() if not key.startswith("iou_")}
    if len(fixed) < len(row):
        fixed["iou"] = " ".join(f"{key[4:]}={value}" for key, value in row.items() if key.startswith("iou_"))
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+", newline="") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0, 2)
        writer = csv.DictWriter(file, list(fixed))
        if not file.tell():
            writer.writeheader()
        writer.writerow(fixed)


if __name__ == "__main__":
    main()
