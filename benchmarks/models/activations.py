"""Measure memory and time of a training step: plain classifier against patch learning, branches kept or recomputed.

Each arm runs in processes of its own. `mib` is the memory that the second step adds at its peak, without gradients:
activations and the kernels' own memory. On a GPU the allocator's peak is taken, on a CPU the resident memory (Linux) of
a process that returns freed memory at once; a second process without that setting is timed. Times are medians of
processor time, on a GPU of wall time.

    python benchmarks/models/activations.py --backbone resnet50 --size 224 --batch 8
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

ARMS = {
    "baseline": ("baseline", False),
    "progressive": ("progressive", False),
    "progressive, computed twice": ("progressive", True),
    "explicit": ("explicit", False),
    "explicit, computed twice": ("explicit", True),
}


HAND_BACK = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "0"}
"""Settings that make glibc return freed memory at once, so that resident memory is memory in use."""


def resident() -> float:
    """Return the resident memory of the process in MiB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 2**20


def forget_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def peak() -> float:
    """Return the peak of the resident memory since `forget_peak` in MiB."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 2**10


def work(arm: str, options: argparse.Namespace) -> None:
    """Run the steps of one arm in this process and print the figures as JSON."""
    import torch

    from ppl.models import create_model

    torch.set_num_threads(options.threads)
    cuda = options.device.startswith("cuda")
    mode, twice = ARMS[arm]
    model = create_model(options.backbone, 20, mode=mode, pretrained=False).to(options.device).train()
    model.set_grad_checkpointing(twice)
    x = torch.randn(options.batch, 3, options.size, options.size, device=options.device)

    def step() -> float:
        start = time.perf_counter() if cuda else time.process_time()
        model(x).square().mean().backward()
        if cuda:
            torch.cuda.synchronize()
        return (time.perf_counter() if cuda else time.process_time()) - start

    step()  # chooses kernels and creates gradients
    if cuda:
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated() / 2**20
    else:
        forget_peak()
        before = resident()
    seconds = [step()]
    most = torch.cuda.max_memory_allocated() / 2**20 if cuda else peak()
    seconds += [step() for _ in range(options.repeats - 1)]
    print(json.dumps({"mib": most - before, "seconds": statistics.median(seconds)}))


def figures(command: list[str], variables: Mapping[str, str] | None = None) -> dict[str, float]:
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=os.environ | (variables or {}))
    found: dict[str, float] = json.loads(done.stdout)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backbone", default="resnet50")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--csv", type=Path, default=Path("activations.csv"))
    parser.add_argument("--work", choices=ARMS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        work(options.work, options)
        return

    rows: list[dict[str, object]] = []
    plain: dict[str, float] = {}
    for arm in ARMS:
        command = [sys.executable, __file__, "--work", arm]
        for name in ("backbone", "size", "batch", "repeats", "threads", "device"):
            command += [f"--{name}", str(getattr(options, name))]
        done = figures(command)
        if options.device == "cpu":
            done["mib"] = figures([*command, "--repeats", "1"], HAND_BACK)["mib"]
        plain = plain or done
        rows.append(
            {
                "backbone": options.backbone,
                "arm": arm,
                "mib": round(done["mib"]),
                "memory_ratio": round(done["mib"] / plain["mib"], 2),
                "seconds": round(done["seconds"], 3),
                "time_ratio": round(done["seconds"] / plain["seconds"], 2),
            }
        )
    print(f"{'arm':<28}" + "".join(f"{key:>14}" for key in list(rows[0])[2:]))
    for row in rows:
        print(f"{row['arm']:<28}" + "".join(f"{value:>14}" for value in list(row.values())[2:]))
    with options.csv.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
