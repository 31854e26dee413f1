"""Peak memory of `cam.iter_generate` over folders of growing size: it should not grow.

Each folder is worked through in a fresh process, whose peak resident memory is read at its end.

    python benchmarks/cam/memory.py --counts 16 64 256
"""

from __future__ import annotations

import argparse
import csv
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

SIZES = ((125, 94), (94, 125), (125, 83), (110, 94))


def fill(folder: Path, count: int) -> None:
    import numpy as np
    from PIL import Image

    random = np.random.default_rng(0)
    for number in range(count):
        width, height = SIZES[number % len(SIZES)]
        pixels = random.integers(0, 256, (height, width, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:05}.jpg")


def work(folder: Path, backbone: str, batch_size: int) -> None:
    """In a process of its own: all maps of a folder, peak memory in MiB printed at the end."""
    import torch

    from ppl.cam import iter_generate
    from ppl.models import create_model

    torch.set_num_threads(1)
    model = create_model(backbone, 20, pretrained=False)
    paths = sorted(folder.iterdir())
    for result in iter_generate(model, paths, [[0, 1]] * len(paths), batch_size=batch_size):
        result.to_mask()
    unit = 2**20 if sys.platform == "darwin" else 2**10
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--counts", type=int, nargs="+", default=[16, 64, 256])
    parser.add_argument("--backbone", default="resnet18")
    parser.add_argument("--batch-size", type=int, default=2)
    parser.add_argument("--csv", type=Path, default=Path("cam_memory.csv"))
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        work(options.work, options.backbone, options.batch_size)
        return

    rows: list[dict[str, float]] = []
    for count in options.counts:
        with tempfile.TemporaryDirectory() as folder:
            fill(Path(folder), count)
            command = [sys.executable, __file__, "--work", folder, "--backbone", options.backbone]
            command += ["--batch-size", str(options.batch_size)]
            peak = float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        first = rows[0]["peak_mib"] if rows else peak
        rows.append({"images": count, "peak_mib": round(peak, 1), "ratio": round(peak / first, 3)})
    print("".join(f"{key:>12}" for key in rows[0]))
    for row in rows:
        print("".join(f"{value:>12}" for value in row.values()))
    with options.csv.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
