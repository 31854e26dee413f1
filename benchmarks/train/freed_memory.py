"""Time training steps on the CPU with glibc's own settings, and with freed memory kept, as the command line keeps it.

    python benchmarks/train/freed_memory.py

Each of the two runs in a process of its own, in turns, since the setting cannot be taken back. The time is that of the
processor, so other work on the machine matters little.
"""

from __future__ import annotations

import argparse
import csv
import resource
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from statistics import median

RESULTS = Path(__file__).parent / "results" / "freed_memory.csv"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="mobilenetv2_100")
    parser.add_argument("--mode", default="baseline", choices=["baseline", "progressive"])
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--memory", choices=["usual", "kept"], help="time the steps in this process")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    if options.memory:
        print(*timed_steps(options))
        return
    seconds: dict[str, list[list[float]]] = defaultdict(list)
    for _ in range(options.rounds):
        for memory in ("usual", "kept"):
            words = [sys.executable, *sys.argv, "--memory", memory]
            words = subprocess.run(words, check=True, capture_output=True, text=True).stdout.split()
            seconds[memory].append([float(word) for word in words])
    rows = []
    for memory, times in seconds.items():
        user, system, mebibytes = (median(column) for column in zip(*times, strict=True))
        rows.append({"backbone": options.backbone, "mode": options.mode, "size": options.size, "batch": options.batch})
        rows[-1] |= {"memory": memory, "user": round(user, 3), "system": round(system, 3), "peak_mib": round(mebibytes)}
        print(rows[-1])
    totals = [row["user"] + row["system"] for row in rows]
    print(f"kept / usual: {totals[1] / totals[0]:.2f}")
    with options.out.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def timed_steps(options: argparse.Namespace) -> tuple[float, float, float]:
    """Return user and system seconds of a training step, and the peak of the memory in MiB."""
    import torch

    from ppl.cli.memory import keep_freed_memory
    from ppl.models import create_model

    if options.memory == "kept":
        keep_freed_memory()
    torch.set_num_threads(1)
    model = create_model(options.backbone, 6, mode=options.mode, pretrained=False, output_stride=16)
    model.set_phase(model.num_phases - 1)
    optimizer = torch.optim.AdamW(model.parameters())
    images = torch.randn(options.batch, 3, options.size, options.size)
    targets = torch.zeros(options.batch, 6)

    def step() -> None:
        loss = torch.nn.functional.binary_cross_entropy_with_logits(model(images), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    step()
    before = resource.getrusage(resource.RUSAGE_SELF)
    for _ in range(options.steps):
        step()
    after = resource.getrusage(resource.RUSAGE_SELF)
    used = (after.ru_utime - before.ru_utime, after.ru_stime - before.ru_stime)
    return used[0] / options.steps, used[1] / options.steps, after.ru_maxrss / 1024


if __name__ == "__main__":
    main()
