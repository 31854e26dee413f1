"""Measure images per second of training: the loader alone, the steps alone, and both together.

The three measurements take turns, so that other work on the machine slows all of them alike. The table shows medians.
The ratio is the speed of training with the loader over the speed of the steps alone.

    python benchmarks/train/throughput.py --data DATASET --backbone mobilenetv2_100 --size 256 192 --precision bf16
"""

from __future__ import annotations

import argparse
import csv
import statistics
import time
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from ppl.data import Batch, open_dataset
from ppl.engine import Trainer, open_accelerator
from ppl.models import create_model
from ppl.train import TrainConfig
from ppl.train.task import ClassifierTask


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="a data set that ppl.data.open_dataset reads")
    parser.add_argument("--split", default="train")
    parser.add_argument("--backbone", default="mobilenetv2_100")
    parser.add_argument("--weights", type=Path, help="timm-keyed weights of the backbone; none: from scratch")
    parser.add_argument("--modes", nargs="+", default=["baseline", "progressive"])
    parser.add_argument("--output-stride", type=int, default=16)
    parser.add_argument("--size", type=int, nargs=2, default=(256, 192))
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--num-workers", type=int, default=2)
    parser.add_argument("--precision", default="bf16", choices=["no", "bf16", "fp16"])
    parser.add_argument("--no-channels-last", action="store_true")
    parser.add_argument("--batches", type=int, default=4, help="batches in one measurement")
    parser.add_argument("--rounds", type=int, default=3, help="measurements of each kind")
    parser.add_argument("--csv", type=Path, help="write the table here as well")
    return parser.parse_args()


def measure(options: argparse.Namespace, mode: str) -> dict[str, float]:
    """Return median images per second of the loader, of the steps, and of both together."""
    dataset = open_dataset(options.data, options.split)
    model = create_model(
        options.backbone,
        len(dataset.classes),
        mode=mode,
        pretrained=False,
        checkpoint_path=options.weights,
        output_stride=options.output_stride,
    )
    config = TrainConfig(
        epochs=max(1, model.num_phases),
        batch_size=options.batch_size,
        size=tuple(options.size),
        num_workers=options.num_workers,
        precision=options.precision,
        channels_last=not options.no_channels_last,
        batch_norm="frozen",
    )
    with open_accelerator(config.precision) as accelerator:
        task = ClassifierTask(model, dataset, None, config, accelerator)
        return _measure(options, Trainer(task, accelerator))


def _measure(options: argparse.Namespace, trainer: Trainer) -> dict[str, float]:
    task, last, steps = trainer.task, trainer.task.model.num_phases - 1, iter(range(10**9))
    task.set_train_mode()

    def train(batches: Any) -> None:
        for batch in batches:
            trainer.step([trainer.to_device(batch)], last, next(steps) % 2)
        trainer.meter.check(0)  # waits for the device

    def load(batches: Any) -> None:
        for _ in batches:
            pass

    fixed: list[Batch] = list(islice(task.batches.epoch(0), options.batches))
    train(fixed[:2])  # warm up: the first calls choose kernels
    kinds = {
        "loader": lambda epoch: load(islice(task.batches.epoch(epoch), options.batches)),
        "steps": lambda epoch: train(fixed),
        "both": lambda epoch: train(islice(task.batches.epoch(epoch), options.batches)),
    }
    found: dict[str, list[float]] = {kind: [] for kind in kinds}
    for epoch in range(options.rounds):
        for kind, run in kinds.items():
            started = time.perf_counter()
            run(epoch)
            found[kind].append(len(fixed) * options.batch_size / (time.perf_counter() - started))
    return {kind: statistics.median(values) for kind, values in found.items()}


def main() -> None:
    options = arguments()
    rows = []
    for mode in options.modes:
        speeds = measure(options, mode)
        rows.append({"mode": mode, **speeds, "both / steps": speeds["both"] / speeds["steps"]})
    size = "x".join(map(str, options.size))
    title = f"images/s, {options.backbone}, {size}, {options.precision}, {torch.get_num_threads()} threads"
    table = Table(*rows[0], title=title)
    for row in rows:
        table.add_row(*(value if isinstance(value, str) else f"{value:.2f}" for value in row.values()))
    Console().print(table)
    if options.csv:
        with options.csv.open("w", newline="") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)


if __name__ == "__main__":
    main()
