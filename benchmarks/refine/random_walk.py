"""Random walk: the stencil against the dense matrix power, same maps, same machine, same run.

    python benchmarks/refine/random_walk.py --out benchmarks/refine/results/random_walk.csv

At small sizes the whole dense walk is measured. At the size of a 500x375 image at stride 4, the dense walk needs eight
squarings of a matrix of 552 MB; one squaring is measured and multiplied by eight, as the table says. Times are CPU
seconds of the process, which depend less on the load of the machine.
"""

from __future__ import annotations

import argparse
import csv
import resource
import time
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from ppl.refine import random_walk
from ppl.refine.stencil import edge_affinity, half_plane_offsets

RADIUS, BETA, SQUARINGS = 5, 10.0, 8
SIZES = [(24, 32), (48, 64), (94, 125)]


def transition_matrix(edges: torch.Tensor) -> torch.Tensor:
    """The (n, n) matrix of IRN, column-normalised."""
    h, w = edges.shape
    affinity = edge_affinity(edges, RADIUS) ** BETA
    cells = torch.arange(h * w).view(h, w)
    matrix = torch.eye(h * w)
    for values, (dy, dx) in zip(affinity, half_plane_offsets(RADIUS), strict=True):
        here = cells[: h - dy, max(0, -dx) : w - max(0, dx)]
        there = cells[dy:, max(0, dx) : w + min(0, dx)]
        kept = values[: h - dy, max(0, -dx) : w - max(0, dx)]
        matrix[here, there] = kept
        matrix[there, here] = kept
    return matrix / matrix.sum(dim=0, keepdim=True)


def cpu_seconds(function, repeats=1):
    times = []
    for _ in range(repeats):
        start = time.process_time()
        result = function()
        times.append(time.process_time() - start)
    return result, float(np.median(times))


def megabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--classes", type=int, default=2)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--skip-large", action="store_true", help="no 552 MB matrix")
    arguments = parser.parse_args()

    chance = torch.Generator().manual_seed(0)
    scenes = []
    for h, w in SIZES:
        edges = torch.rand(h, w, generator=chance) ** 3
        scenes.append((torch.rand(arguments.classes, h, w, generator=chance), edges))
    random_walk(scenes[0][1], scenes[0][0])  # compiles

    # The stencil walks run first, since the peak memory of the process never falls.
    ours = []
    for maps, edges in scenes:
        before = megabytes()
        result, seconds = cpu_seconds(lambda m=maps, e=edges: random_walk(e, m), repeats=7)
        ours.append((result, seconds, megabytes() - before))

    rows = []
    for (maps, edges), (result, seconds, memory) in zip(scenes, ours, strict=True):
        h, w = edges.shape
        large = h * w > 5000
        if large and arguments.skip_large:
            continue
        matrix = transition_matrix(edges)
        start = maps.flatten(1) * (1 - edges.flatten())
        if large:
            _, squaring = cpu_seconds(lambda m=matrix: m @ m)
            dense, difference, note = squaring * SQUARINGS, "-", "1 of 8 squarings"
        else:
            power, dense = cpu_seconds(lambda m=matrix: torch.linalg.matrix_power(m, 2**SQUARINGS))
            difference, note = f"{(start @ power - result.flatten(1)).abs().max():.1e}", "whole walk"
        rows.append(
            {
                "cells": f"{h}x{w}",
                "cpu_s": f"{seconds:.4f}",
                "peak_mb": f"{memory:.1f}",
                "dense_cpu_s": f"{dense:.2f}",
                "dense_mb": f"{matrix.numel() * 4 / 2**20:.0f}",
                "ratio": f"{dense / seconds:.0f}",
                "max_diff": difference,
                "measured": note,
            }
        )
    table = Table(title=f"{arguments.classes} classes, radius {RADIUS}, beta {BETA}, {2**SQUARINGS} steps")
    for name in rows[0]:
        table.add_column(name)
    for row in rows:
        table.add_row(*row.values())
    Console().print(table)
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        with arguments.out.open("w", newline="") as handle:
            writer = csv.DictWriter(handle, rows[0])
            writer.writeheader()
            writer.writerows(rows)


if __name__ == "__main__":
    main()
