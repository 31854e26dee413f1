"""CPU time per training image: `ppl.data.train_loader` beside a plain torchvision pipeline over the same files.

    python benchmarks/data/loader.py --data DATASET [--size 256 192] [--images 300] [--csv loader.csv]

Both decode, resize, flip, jitter, crop and normalise in one thread of one process. They take turns, round by round; the
table shows the median of the rounds and the ratio of the two.
"""

from __future__ import annotations

import argparse
import csv
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from PIL import Image
from rich.console import Console
from rich.table import Table
from torchvision.transforms import v2

from ppl.data import TaggedImages, make_creatures, open_dataset, train_loader, train_transform

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def ours(dataset: TaggedImages, size: tuple[int, int]) -> Callable[[], None]:
    loader = train_loader(dataset, train_transform(size, MEAN, STD), batch_size=16, drop_last=False)

    def run() -> None:
        for _ in loader:
            pass

    return run


def plain(dataset: TaggedImages, size: tuple[int, int]) -> Callable[[], None]:
    steps = [
        v2.PILToTensor(),
        v2.RandomResizedCrop(size, antialias=True),
        v2.RandomHorizontalFlip(),
        v2.ColorJitter(0.3, 0.3, 0.3, 0.1),
        v2.ToDtype(torch.float32, scale=True),
        v2.Normalize(MEAN, STD),
    ]
    transform = v2.Compose(steps)

    def run() -> None:
        for start in range(0, len(dataset), 16):
            images = [Image.open(sample.image).convert("RGB") for sample in dataset[start : start + 16]]
            torch.stack([transform(image) for image in images])

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="a data set in any known layout; the built-in one if left out")
    parser.add_argument("--split")
    parser.add_argument("--size", type=int, nargs=2, default=(256, 192), metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--images", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--csv", type=Path, default=Path("loader.csv"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        root = options.data or make_creatures(Path(folder) / "creatures", train=options.images, val=0)
        dataset = open_dataset(root, options.split)[: options.images]
        size = (options.size[0], options.size[1])
        arms = {"ppl": ours(dataset, size), "torchvision": plain(dataset, size)}
        times: dict[str, list[float]] = {name: [] for name in arms}
        for _ in range(options.rounds):
            for name, run in arms.items():
                start = time.process_time()
                run()
                times[name].append(1e3 * (time.process_time() - start) / len(dataset))
    ratio = statistics.median(a / b for a, b in zip(times["ppl"], times["torchvision"], strict=True))
    rows = [[name, f"{statistics.median(values):.2f}"] for name, values in times.items()] + [["ratio", f"{ratio:.2f}"]]
    table = Table("loader", "CPU ms per image", title=f"{len(dataset)} images to {size[0]}x{size[1]}")
    for row in rows:
        table.add_row(*row)
    Console().print(table)
    with options.csv.open("w", newline="") as handle:
        csv.writer(handle).writerows([["loader", "cpu_ms_per_image"], *rows])


if __name__ == "__main__":
    main()
