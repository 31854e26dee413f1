"""`ppl predict` on a folder of pictures against the bare network on the same pixels; peak memory by number of pictures.

    python benchmarks/segment/predict_folder.py --out benchmarks/segment/results/predict_folder.csv

The pictures are cut out of drawings, of about 320x240 pixels. The bare network gets them as tensors in memory, picture
and mirror image one after the other, as `ppl predict` passes them. Both take turns, part by part, in one process with
one thread for the network. Processor time is of all threads of the process, so a command that reaches 0.9 of the bare
network there does so on a machine whose cores are all busy. Wall time depends on what else runs. Memory is of one
process for each number of pictures, with a small network, so that growth shows. `--large 10000` measures the memory of
one picture of 10000x10000 pixels, and nothing else.
"""

from __future__ import annotations

import argparse
import csv
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.table import Table

from ppl.cam.images import to_tensor
from ppl.data import make_creatures, read_folder
from ppl.pipeline import predict_folder
from ppl.segment import create_segmenter, load
from ppl.segment.files import save_segmenter

SMALL = ("test_resnet", "fpn")


def draw(folder: Path, count: int, parts: int) -> list[Path]:
    """Cut pictures out of drawings into `parts` folders."""
    random = np.random.default_rng(0)
    drawn = [sample.read_image() for sample in read_folder(make_creatures(folder / "set", train=8, val=1, size=400))]
    for number in range(count):
        height, width = random.integers((216, 296), (264, 344)).tolist()
        top, left = random.integers(0, (400 - height, 400 - width)).tolist()
        path = folder / f"part{number % parts}" / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        drawn[number % len(drawn)].crop((left, top, left + width, top + height)).save(path, quality=90)
    return [folder / f"part{part}" for part in range(parts)]


def network_file(folder: Path, encoder: str, decoder: str) -> Path:
    torch.manual_seed(0)
    path = folder / f"{encoder}.safetensors"
    save_segmenter(create_segmenter(encoder, 20, decoder=decoder, pretrained=False), path)
    return path


def seconds(function: Callable[[], object]) -> tuple[float, float]:
    """Return processor time and wall time of a call."""
    start = time.process_time(), time.perf_counter()
    function()
    return time.process_time() - start[0], time.perf_counter() - start[1]


def compare(network: Path, part: Path, out: Path) -> tuple[float, float]:
    """Return the speed of the command as a share of the bare network's, by processor time and by wall time."""
    model = load(network)
    tensors = [to_tensor(path, model.data_config, 0)[None] for path in sorted(part.iterdir())]

    def bare() -> None:
        with torch.inference_mode():
            for image in tensors:
                model(image), model(image.flip(-1))

    bare_seconds = seconds(bare)
    seconds_ = seconds(lambda: predict_folder(network, part, out, device="cpu", progress=False))
    return bare_seconds[0] / seconds_[0], bare_seconds[1] / seconds_[1]


def peak_memory(network: Path, pictures: Path, count: int, folder: Path) -> float:
    """Return the peak memory in MiB of a process that segments the first pictures of a folder."""
    some = folder / f"first{count}"
    some.mkdir()
    for path in sorted(pictures.iterdir())[:count]:
        (some / path.name).hardlink_to(path)
    command = [sys.executable, __file__, "--child", str(network), str(some), str(folder / f"out{count}")]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])


def large(side: int) -> float:
    """Return the peak memory in MiB of a process that segments one picture, beside that for a picture of 64x64."""
    peaks = []
    with tempfile.TemporaryDirectory() as name:
        network = network_file(Path(name), *SMALL)
        for length in (64, side):
            pictures = Path(name) / f"{length}"
            pictures.mkdir()
            noise = np.random.default_rng(0).integers(0, 256, (length // 16, length // 16, 3), dtype=np.uint8)
            Image.fromarray(noise).resize((length, length)).save(pictures / "0.jpg")
            peaks.append(peak_memory(network, pictures, 1, Path(name)))
            (Path(name) / "first1").rename(Path(name) / f"done{length}")
            (Path(name) / "out1").rename(Path(name) / f"out{length}")
    return peaks[1] - peaks[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoder", default="mobilenetv2_100")
    parser.add_argument("--decoder", default="fpn")
    parser.add_argument("--pictures", type=int, default=500)
    parser.add_argument("--timed", type=int, default=500, help="pictures whose time is taken")
    parser.add_argument("--parts", type=int, default=5, help="turns of both")
    parser.add_argument(
        "--large", type=int, metavar="SIDE", help="measure the memory of one picture of this side alone"
    )
    parser.add_argument("--out", type=Path)
    parser.add_argument("--child", nargs=3, type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.child:
        predict_folder(*arguments.child, device="cpu", progress=False)
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
        return
    rows: list[list[object]] = []
    if arguments.large:
        print(f"peak memory of a picture of {arguments.large}x{arguments.large}: {large(arguments.large):.0f} MiB")
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        parts = draw(folder / "timed", arguments.timed, arguments.parts)
        network = network_file(folder, arguments.encoder, arguments.decoder)
        shares = []
        for part in parts:
            shares.append(compare(network, part, folder / f"out-{part.name}"))
            print(part.name, shares[-1], flush=True)
        for kind, found in zip(("processor", "wall"), zip(*shares, strict=True), strict=True):
            values = [round(statistics.median(found), 3), round(min(found), 3), round(max(found), 3)]
            rows.append([f"share of the bare network's images/s, {kind} time", *values])
        small = network_file(folder, *SMALL)
        draw(folder / "memory", arguments.pictures, 1)
        for count in (arguments.pictures // 5, arguments.pictures):
            memory = round(peak_memory(small, folder / "memory" / "part0", count, folder))
            rows.append([f"peak memory of {count} pictures, MiB", memory, "", ""])
    names = ["measure", "median", "least", "most"]
    table = Table(*names, title=f"ppl predict, {arguments.encoder} under {arguments.decoder}")
    for row in rows:
        table.add_row(*map(str, row))
    Console().print(table)
    if arguments.out:
        with arguments.out.open("w", newline="") as file:
            csv.writer(file).writerows([names, *rows])


if __name__ == "__main__":
    main()
