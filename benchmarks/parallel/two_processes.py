"""The wall time of `ppl cam`, `ppl refine` and `ppl predict` with two processes against one, with one thread each.

One process and two do the same commands in turn, into new folders; their files are compared byte for byte. The clock
stands while packages are imported and the CRF is compiled: all processes are forked from one that has done so. The
script fails if a file differs, or if the median ratio of a command is above `--goal`. It needs two idle cores: look at
the printed load. On a busy machine `cpu` tells more: the processor time of the busier of two processes over one's.

    python benchmarks/parallel/two_processes.py
"""

from __future__ import annotations

import argparse
import csv
import os
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from ppl.models import create_model, save_model
from ppl.pipeline import CamRecipe, cam_folder, predict_folder, refine_cams
from ppl.refine import crf
from ppl.segment import create_segmenter
from ppl.segment.files import save_segmenter


def draw(folder: Path, count: int, height: int, width: int) -> None:
    folder.mkdir()
    random = np.random.default_rng(0)
    for number in range(count):
        pixels = random.integers(0, 256, (height // 16, width // 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC).save(folder / f"{number:05}.jpg")


def launch(call: Callable[[], object], processes: int) -> tuple[float, float]:
    """Call in several processes, as a launcher starts them; return wall time, processor time of the busiest process."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    start, children = time.perf_counter(), []
    for rank in range(processes):
        child = os.fork()
        if not child:
            os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
            os.environ |= {"WORLD_SIZE": str(processes), "LOCAL_WORLD_SIZE": str(processes)}
            code = 1
            try:
                call()
                code = 0
            finally:
                sys.stdout.flush()
                os._exit(code)
        children.append(child)
    ends = [os.wait4(child, 0) for child in children]
    if any(os.waitstatus_to_exitcode(status) for _, status, _ in ends):
        sys.exit("a process failed, see its error above")
    return time.perf_counter() - start, max(usage.ru_utime + usage.ru_stime for *_, usage in ends)


def contents(folder: Path) -> dict[str, bytes]:
    """Return all files but the records, whose lines are in the order in which the images were done."""
    found = (path for path in sorted(folder.rglob("*")) if path.suffix in (".npz", ".png", ".jpg", ".html"))
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="resnet18")
    parser.add_argument("--images", type=int, default=40)
    parser.add_argument("--size", type=int, nargs=2, default=(375, 500), help="height and width")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--goal", type=float, default=0.6, help="largest ratio that passes")
    parser.add_argument("--csv", type=Path, default=Path(__file__).parent / "results" / "two_processes.csv")
    options = parser.parse_args()
    torch.set_num_threads(1)
    probs = np.full((2, 32, 32), 0.5, np.float32)
    crf(np.zeros((32, 32, 3), np.uint8), probs, preset="deeplab")  # compiled here once, not in every process
    rows, failures = [], []
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        pictures, weights, network = work / "pictures", work / "model.safetensors", work / "network.safetensors"
        draw(pictures, options.images, *options.size)
        save_model(create_model(options.backbone, 20, pretrained=False), weights)
        save_segmenter(create_segmenter(options.backbone, 20, pretrained=False), network)
        settings = CamRecipe(scales=(1.0,), labels="predicted", batch_size=1)
        common = {"device": "cpu", "num_workers": 1, "progress": False}
        commands: dict[str, Callable[[Path], object]] = {
            "cam": lambda out: cam_folder(weights, pictures, out / "cam", settings=settings, **common),
            "refine": lambda out: refine_cams(out / "cam" / "cams", pictures, out / "refine", "crf: deeplab", **common),
            "predict": lambda out: predict_folder(network, pictures, out / "predict", **common),
        }
        seconds: dict[str, dict[int, list[tuple[float, float]]]] = {command: {1: [], 2: []} for command in commands}
        for repeat in range(options.repeats):
            print(f"repeat {repeat + 1}, load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores", flush=True)
            for command, call in commands.items():
                for processes in (1, 2):
                    out = work / f"{processes}-{repeat}"
                    seconds[command][processes].append(launch(lambda: call(out), processes))  # noqa: B023
            if contents(work / f"1-{repeat}") != contents(work / f"2-{repeat}"):
                failures.append("the files of two processes are not those of one")
    for command, found in seconds.items():
        pairs = list(zip(found[1], found[2], strict=True))
        ratio, busiest = (statistics.median(two[kind] / one[kind] for one, two in pairs) for kind in (0, 1))
        medians = [round(statistics.median(wall for wall, _ in found[processes]), 2) for processes in (1, 2)]
        rows.append({"command": command, "images": options.images, "one_s": medians[0], "two_s": medians[1]})
        rows[-1] |= {"two / one": round(ratio, 2), "cpu": round(busiest, 2), "load": round(os.getloadavg()[0], 1)}
        print("  ".join(f"{key}: {value}" for key, value in rows[-1].items()))
        if ratio > options.goal:
            failures.append(f"{command}: two processes take {ratio:.2f} of the time of one, more than {options.goal}")
    options.csv.parent.mkdir(exist_ok=True)
    with options.csv.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    sys.exit("; ".join(failures) or None)


if __name__ == "__main__":
    main()
