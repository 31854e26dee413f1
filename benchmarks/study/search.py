"""Search the rate and the length of every arm on one part of `val`, then train each with its best on further seeds.

    python benchmarks/study/search.py DATASET WEIGHTS --size 384 288 --scales 1 1.5 2 --device cuda --jobs 14

Every arm has the same search: `--rates` times `--lengths`, with the seeds `--search-seeds`, scored on the images
`--tune`. The best has the highest mIoU at the best threshold, the mean over those seeds and over the maps read `whole`
and by `layercam`. It is trained with `--seeds` and scored on `--test`, images that the search has not seen. Cells that
the CSV holds are passed over, so a stopped search goes on where it was.
"""

from __future__ import annotations

import argparse
import csv
import multiprocessing
import statistics
import time
from argparse import Namespace
from collections import defaultdict
from collections.abc import Iterable
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import torch
from arms import ARMS
from features import seal
from run import HERE, arguments, front_file, groups_of, pool_of, pool_place, run_cell

READINGS = ("whole", "layercam")
AVERAGE = ("baseline", "control", "progressive", "explicit")
SEARCHED = (*AVERAGE, *(f"{arm}_ngwp" for arm in AVERAGE))


def options_of_search() -> Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("weights", type=Path)
    parser.add_argument("--arms", nargs="+", default=list(SEARCHED), choices=list(ARMS), metavar="ARM")
    parser.add_argument("--rates", nargs="+", default=["5e-5", "1e-4", "2e-4", "4e-4"])
    parser.add_argument("--lengths", nargs="+", default=["6", "12"])
    parser.add_argument("--search-seeds", type=int, nargs="+", default=[9])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--tune", default=":168")
    parser.add_argument("--test", default="168:")
    parser.add_argument("--size", nargs=2, default=["384", "288"])
    parser.add_argument("--scales", nargs="+", default=["1", "1.5", "2"])
    parser.add_argument("--views", default="12")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--work", default="runs/study")
    parser.add_argument("--out", default=str(HERE / "results" / "search.csv"))
    return parser.parse_args()


def cell_options(options: Namespace, rate: str, epochs: str, images: str) -> Namespace:
    """The options of `run.py` for cells of this search."""
    words = [str(options.data), str(options.weights), "--lr", rate, "--epochs", epochs, "--images", images]
    words += ["--size", *options.size, "--scales", *options.scales, "--views", options.views, "--own-views"]
    words += ["--device", options.device, "--work", options.work, "--out", options.out]
    return arguments([*words, "--no-crf", "--readings", *READINGS])


def make_views(seed: int, view: int, options: Namespace) -> None:
    pool_of(seed, options, only=[view])


def make_fronts(options: Namespace) -> None:
    next(iter(groups_of(options)))


def start_process() -> None:
    torch.set_num_threads(1)


def main() -> None:
    options = options_of_search()
    started = time.perf_counter()
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(options.jobs, mp_context=spawn, initializer=start_process) as pool:

        def all_of(jobs: Iterable[tuple[Any, ...]], what: str) -> None:
            futures: list[Future[None]] = [pool.submit(*job) for job in jobs]
            for done in as_completed(futures):
                if error := done.exception():
                    print(f"{what}: a job failed: {error!r}", flush=True)
            print(f"{what}: {len(futures)} jobs, {time.perf_counter() - started:.0f} s so far", flush=True)

        first = cell_options(options, options.rates[0], options.lengths[0], options.tune)
        seeds = [seed for seed in (*options.search_seeds, *options.seeds) if not complete(seed, first)]
        fronts = [
            cell_options(options, options.rates[0], options.lengths[0], images)
            for images in (options.tune, options.test)
        ]
        jobs: list[tuple[Any, ...]] = [(make_fronts, one) for one in fronts if not front_file(one).exists()]
        all_of(jobs + [(make_views, seed, view, first) for seed in seeds for view in range(first.views)], "pools")
        for seed in seeds:
            seal(pool_place(seed, first))
        longest = sorted(options.lengths, key=int, reverse=True)
        searched = [
            (run_cell, arm, seed, cell_options(options, rate, epochs, options.tune))
            for seed in options.search_seeds
            for epochs in longest
            for rate in options.rates
            for arm in options.arms
        ]
        all_of(searched, "search")
        best = choices(Path(options.out), options)
        finals = [
            (run_cell, arm, seed, cell_options(options, *best[arm], options.test))
            for seed in options.seeds
            for arm in options.arms
        ]
        all_of(finals, "finals")


def complete(seed: int, options: Namespace) -> bool:
    return (pool_place(seed, options) / "pool.json").exists()


def choices(path: Path, options: Namespace) -> dict[str, tuple[str, str]]:
    """The rate and the length at which each arm did best in the search."""
    found: dict[str, dict[tuple[str, str], list[float]]] = defaultdict(lambda: defaultdict(list))
    with path.open() as file:
        for row in csv.DictReader(file):
            if (row["data"], row["images"]) == (options.data.name, options.tune):
                found[row["arm"]][row["lr"], row["epochs"]].append(float(row["miou_best"]))
    best = {arm: max(cells, key=lambda key: statistics.mean(cells[key])) for arm, cells in found.items()}
    for arm, (rate, epochs) in best.items():
        print(f"{arm}: {epochs} epochs at {rate}", flush=True)
    return best


if __name__ == "__main__":
    main()
