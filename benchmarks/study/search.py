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
from collections.abc import Iterable, Sequence
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
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--work", default="runs/study")
    parser.add_argument("--out", default=str(HERE / "results" / "search.csv"))
    return parser.parse_args()


def cell_options(options: Namespace, rate: str, epochs: str, images: str, views: str) -> Namespace:
    """The options of `run.py` for cells of this search."""
    words = [str(options.data), str(options.weights), "--lr", rate, "--epochs", epochs, "--images", images]
    words += ["--size", *options.size, "--scales", *options.scales, "--views", views, "--own-views"]
    words += ["--device", options.device, "--work", options.work, "--out", options.out]
    return arguments([*words, "--no-crf", "--readings", *READINGS])


def make_views(seed: int, view: int, options: Namespace) -> None:
    pool_of(seed, options, only=[view])


def make_fronts(options: Namespace) -> None:
    next(groups_of(options))


def main() -> None:
    options = options_of_search()
    torch.set_num_threads(1)
    started = time.perf_counter()
    # imports are shared with the processes, of which each opens the device for itself
    with ProcessPoolExecutor(options.jobs, mp_context=multiprocessing.get_context("fork")) as processes:

        def do(what: str, jobs: Iterable[tuple[Any, ...]]) -> None:
            futures: list[Future[None]] = [processes.submit(*job) for job in jobs]
            errors = [error for done in as_completed(futures) if (error := done.exception())]
            print(f"{what}: {len(futures)} jobs, {time.perf_counter() - started:.0f} s so far", flush=True)
            if errors:
                raise SystemExit(f"{len(errors)} of them failed, as with {errors[0]!r}: the same command goes on")

        def prepare(seeds: Sequence[int], cell: Namespace) -> None:
            """Front maps of the scored pictures, and a pool of views for each seed."""
            places = {seed: pool_place(seed, cell) for seed in seeds}
            lacking = [seed for seed, place in places.items() if not (place / "pool.json").exists()]
            fronts = [] if front_file(cell).exists() else [(make_fronts, cell)]
            do("prepared", fronts + [(make_views, seed, view, cell) for view in range(cell.views) for seed in lacking])
            for seed in lacking:
                seal(places[seed])

        # every epoch has new views
        views = max(options.lengths, key=int)
        prepare(options.search_seeds, cell_options(options, options.rates[0], views, options.tune, views))
        searched = [
            (run_cell, arm, seed, cell_options(options, rate, epochs, options.tune, views))
            for epochs in sorted(options.lengths, key=int, reverse=True)
            for seed in options.search_seeds
            for rate in options.rates
            for arm in options.arms
        ]
        do("searched", searched)
        best = choices(Path(options.out), options)
        views = max((epochs for _, epochs in best.values()), key=int)
        finals = {arm: cell_options(options, *best[arm], options.test, views) for arm in options.arms}
        prepare(options.seeds, finals[options.arms[0]])
        do("trained", [(run_cell, arm, seed, finals[arm]) for seed in options.seeds for arm in options.arms])


def choices(path: Path, options: Namespace) -> dict[str, tuple[str, str]]:
    """The rate and the length at which each arm did best in the search."""
    setting = {
        "data": options.data.name,
        "images": options.tune,
        "size": "x".join(options.size),
        "scales": " ".join(options.scales),
    }
    found: dict[str, dict[tuple[str, str], list[float]]] = defaultdict(lambda: defaultdict(list))
    with path.open() as file:
        for row in csv.DictReader(file):
            if setting.items() <= row.items():
                found[row["arm"]][row["lr"], row["epochs"]].append(float(row["miou_best"]))
    best = {arm: max(cells, key=lambda key: statistics.mean(cells[key])) for arm, cells in found.items()}
    for arm, (rate, epochs) in best.items():
        print(f"{arm}: {epochs} epochs at {rate}", flush=True)
    return best


if __name__ == "__main__":
    main()
