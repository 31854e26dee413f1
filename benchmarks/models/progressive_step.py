"""Compare a progressive training step with two plain passes of the same model, forward and backward.

The layers before the cut run once in a progressive step and twice in two plain passes, so the ratio is below 1, and
lower for deeper cuts. "one pass" is the lower bound. Runs alternate; times are medians of processor time, on a GPU of
wall time.

    python benchmarks/models/progressive_step.py --backbone resnet18 --size 224 --batch 4
"""

from __future__ import annotations

import argparse
import csv
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch

from ppl.models import PPLNet, create_model


def two_passes(model: PPLNet, x: torch.Tensor) -> torch.Tensor:
    maps = [model.backbone.forward_features(x), model.backbone.forward_features(x)]
    return model.fusion(maps)


def one_pass(model: PPLNet, x: torch.Tensor) -> torch.Tensor:
    whole = model.backbone.forward_features(x)
    return model.fusion([whole, whole])


def seconds(forward: Callable[[PPLNet, torch.Tensor], torch.Tensor], model: PPLNet, x: torch.Tensor) -> float:
    model.zero_grad()
    start = now(x.device)
    forward(model, x).square().sum().backward()
    return now(x.device) - start


def now(device: torch.device) -> float:
    """Return processor time on a CPU, and on a GPU the time after all its work is done."""
    if device.type == "cpu":
        return time.process_time()
    torch.cuda.synchronize(device)
    return time.perf_counter()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backbone", default="resnet18")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--grid", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"))
    parser.add_argument("--csv", type=Path, default=Path("progressive_step.csv"))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)

    model = create_model(options.backbone, 20, grids=options.grid, padding="zeros", pretrained=False).to(options.device)
    x = torch.randn(options.batch, 3, options.size, options.size, device=options.device)
    rows = []
    for stage, cut in enumerate(model.cuts):
        model.set_phase(stage)
        runs: dict[str, list[float]] = {"progressive": [], "two passes": [], "one pass": []}
        passes = {"progressive": lambda model, x: model(x), "two passes": two_passes, "one pass": one_pass}
        for repeat in range(options.repeats + 1):
            for name, forward in passes.items():
                taken = seconds(forward, model, x)
                if repeat:  # The first round warms up.
                    runs[name].append(taken)
        medians = {name: statistics.median(taken) for name, taken in runs.items()}
        rows.append(
            {
                "backbone": options.backbone,
                "cut": cut,
                "progressive_s": round(medians["progressive"], 4),
                "two_passes_s": round(medians["two passes"], 4),
                "one_pass_s": round(medians["one pass"], 4),
                "ratio_to_two": round(medians["progressive"] / medians["two passes"], 3),
                "ratio_to_one": round(medians["progressive"] / medians["one pass"], 3),
            }
        )
    print("".join(f"{key:>15}" for key in rows[0]))
    for row in rows:
        print("".join(f"{value:>15}" for value in row.values()))
    with options.csv.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
