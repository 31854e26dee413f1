"""The native dense CRF against pydensecrf: speed, agreement, memory, cold start, a whole folder.

    python benchmarks/refine/crf.py IMAGES speed   [--out FILE]    CPU time of one thread each, interleaved
    python benchmarks/refine/crf.py IMAGES presets [--out FILE]    agreement, every preset, 2, 3, 5 and 21 labels
    python benchmarks/refine/crf.py IMAGES memory  [--out FILE]    growth of the resident set by one call
    python benchmarks/refine/crf.py IMAGES cold    [--out FILE]    processes without and with compiled code on disk
    python benchmarks/refine/crf.py IMAGES folder  [--out FILE]    200 images, cold start and reading included
    python benchmarks/refine/crf.py IMAGES gpu     [--out FILE]    batches on a GPU against all cores of the CPU
    python benchmarks/refine/crf.py IMAGES before --before CHECKOUT [--out FILE]    the engine of another checkout

IMAGES is a folder of pictures; they are enlarged to 500x375. Their maps are made of the pictures: a softmax over random
mixtures of the blurred colours. Nothing is cached by size, so every image counts as an image of a new size. pydensecrf
is called as the field's own code calls it, energies included. CPU times and their ratios suffer less from a busy
machine than wall times do (of `cold` and `folder`), which need an idle machine.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from PIL import Image

# The functions that use an engine import it, so that no process pays for another engine.

WIDTH, HEIGHT = 500, 375
Row = dict[str, object]


def setting_of(name: str) -> SimpleNamespace:
    from ppl.refine.crf import PRESETS

    preset = PRESETS[name]
    if not hasattr(preset, "energies_from"):  # a checkout before `CrfConfig`
        return SimpleNamespace(**vars(preset), energies_from=preset.unary)
    return SimpleNamespace(**dict(preset))


def pictures(folder: Path, count: int) -> list[Path]:
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in {".jpg", ".jpeg", ".png"})
    if not found:
        raise SystemExit(f"no pictures in {folder}")
    return (found * (1 + count // len(found)))[:count]


def read(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.array(picture.convert("RGB").resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC))


def maps_of(image: np.ndarray, labels: int, among: int | None = None) -> np.ndarray:
    """Return (L, H, W) probabilities; with `among`, of that many labels, of which `labels` are present."""
    small = np.asarray(Image.fromarray(image).resize((32, 24), Image.Resampling.BOX), np.float32) / 255 - 0.5
    mixtures = np.random.default_rng(labels).standard_normal((labels, 3)).astype(np.float32)
    scores = np.exp(
        [Image.fromarray(6 * small @ mix).resize((WIDTH, HEIGHT), Image.Resampling.BILINEAR) for mix in mixtures]
    ).astype(np.float32)
    probs = scores / scores.sum(axis=0)
    if among is None:
        return probs
    result = np.zeros((among, HEIGHT, WIDTH), np.float32)
    result[np.linspace(0, among - 1, labels).astype(int)] = probs
    return result


def ours(image: np.ndarray, probs: np.ndarray, preset: SimpleNamespace) -> np.ndarray:
    from ppl import refine
    from ppl.refine.crf import crf

    names = ("gaussian_sxy", "gaussian_compat", "bilateral_sxy", "bilateral_srgb", "bilateral_compat", "iterations")
    settings = {name: getattr(preset, name) for name in names}
    if hasattr(refine, "crf_from_labels") and preset.energies_from == "labels":  # a checkout before `labels=`
        return refine.crf_from_labels(image, probs.argmax(axis=0), len(probs), **settings, backend="native")
    if preset.energies_from == "labels":
        return crf(image, labels=probs.argmax(axis=0), num_labels=len(probs), **settings, backend="native")
    return crf(image, probs, **settings, backend="native")


def theirs(image: np.ndarray, probs: np.ndarray, preset: SimpleNamespace) -> np.ndarray:
    import pydensecrf.densecrf as densecrf
    from pydensecrf.utils import unary_from_labels, unary_from_softmax

    if preset.energies_from == "labels":
        unary = unary_from_labels(probs.argmax(axis=0), len(probs), preset.gt_prob, zero_unsure=False)
    else:
        unary = unary_from_softmax(probs)
    model = densecrf.DenseCRF2D(image.shape[1], image.shape[0], len(probs))
    model.setUnaryEnergy(np.ascontiguousarray(unary))
    model.addPairwiseGaussian(sxy=preset.gaussian_sxy, compat=preset.gaussian_compat)
    model.addPairwiseBilateral(
        sxy=preset.bilateral_sxy, srgb=preset.bilateral_srgb, rgbim=np.ascontiguousarray(image),
        compat=preset.bilateral_compat,
    )  # fmt: skip
    return np.array(model.inference(preset.iterations)).reshape(probs.shape)


def timed(function: Callable[..., np.ndarray], *arguments: object) -> tuple[float, np.ndarray]:
    start = time.process_time()
    result = function(*arguments)
    return time.process_time() - start, result


def compare(paths: list[Path], name: str, labels: int, among: int | None = None) -> Row:
    """Time both engines on the same images in turn, in changing order; return medians over the images."""
    mine, other, agreement, distance, furthest = [], [], [], [], []
    preset = setting_of(name)
    ours(read(paths[0]), maps_of(read(paths[0]), labels, among), preset)
    for number, path in enumerate(paths):
        image = read(path)
        probs = maps_of(image, labels, among)
        if number % 2:
            theirs_s, expected = timed(theirs, image, probs, preset)
            ours_s, result = timed(ours, image, probs, preset)
        else:
            ours_s, result = timed(ours, image, probs, preset)
            theirs_s, expected = timed(theirs, image, probs, preset)
        mine.append(ours_s)
        other.append(theirs_s)
        agreement.append((result.argmax(axis=0) == expected.argmax(axis=0)).mean())
        distance.append(np.abs(result - expected).mean())
        furthest.append(np.abs(result - expected).max())
    ratios = [b / a for a, b in zip(mine, other, strict=True)]
    return {
        "preset": name,
        "labels": labels if among is None else f"{labels} of {among}",
        "images": len(paths),
        "pydensecrf_ms": round(1000 * statistics.median(other), 1),
        "native_ms": round(1000 * statistics.median(mine), 1),
        "ratio": round(statistics.median(ratios), 2),
        "least_ratio": round(min(ratios), 2),
        "least_agreement": f"{min(agreement):.6f}",
        "mean_dq": f"{max(distance):.1e}",
        "max_dq": f"{max(furthest):.1e}",
    }


def speed(folder: Path, count: int) -> Iterator[Row]:
    paths = pictures(folder, count)
    for name in ("psa", "irn"):
        for labels in (2, 3, 5, 21):
            yield compare(paths, name, labels)
    yield compare(paths, "psa", 3, among=21)


class Worker:
    """A process that times one engine: a line with preset, number of labels and picture in, CPU seconds out.

    Attributes:
        result: the file that holds the last result.
    """

    def __init__(self, folder: Path, engine: str, checkout: Path, place: Path) -> None:
        self.result = place / f"{engine}.npy"
        command = [sys.executable, __file__, str(folder), "_serve", "--part", f"{engine},{self.result}"]
        environment = {**os.environ, "PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1"}
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=environment, cwd=checkout)

    def time(self, preset: str, labels: int, picture: int) -> float:
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(f"{preset} {labels} {picture}\n")
        self.process.stdin.flush()
        return float(self.process.stdout.readline())

    def close(self) -> None:
        assert self.process.stdin
        self.process.stdin.close()
        self.process.wait()


def serve_part(folder: Path, part: str) -> None:
    engine, result = part.split(",")
    function = theirs if engine == "theirs" else ours
    for line in sys.stdin:
        name, labels, picture = line.split()
        image = read(pictures(folder, int(picture) + 1)[-1])
        seconds, found = timed(function, image, maps_of(image, int(labels)), setting_of(name))
        np.save(result, found)
        print(seconds, flush=True)


def against_before(folder: Path, count: int, checkout: Path) -> Iterator[Row]:
    """Time pydensecrf, the engine of another checkout and this engine in turn; the better of two times counts."""
    here = Path(__file__).parents[2]
    with tempfile.TemporaryDirectory() as place:
        checkouts = {"theirs": here, "before": checkout.resolve(), "ours": here}
        workers = {name: Worker(folder, name, path, Path(place)) for name, path in checkouts.items()}
        for preset, labels in [(preset, labels) for preset in ("psa", "irn") for labels in (2, 3, 21)]:
            times: dict[str, list[float]] = {name: [] for name in workers}
            agreement = []
            for worker in workers.values():
                worker.time(preset, labels, 0)  # compiles
            for picture in range(count):
                names = list(workers)[:: 1 if picture % 2 else -1]
                twice = [{name: workers[name].time(preset, labels, picture) for name in names} for _ in range(2)]
                for name in names:
                    times[name].append(min(seconds[name] for seconds in twice))
                found, expected = (np.load(workers[name].result) for name in ("ours", "theirs"))
                agreement.append((found.argmax(axis=0) == expected.argmax(axis=0)).mean())
            ratios = {
                name: statistics.median(a / b for a, b in zip(times["theirs"], times[name], strict=True))
                for name in ("before", "ours")
            }
            yield {
                "preset": preset,
                "labels": labels,
                "images": count,
                "pydensecrf_ms": round(1000 * statistics.median(times["theirs"]), 1),
                "before_ms": round(1000 * statistics.median(times["before"]), 1),
                "after_ms": round(1000 * statistics.median(times["ours"]), 1),
                "before_ratio": round(ratios["before"], 2),
                "after_ratio": round(ratios["ours"], 2),
                "after_of_before": round(
                    statistics.median(a / b for a, b in zip(times["before"], times["ours"], strict=True)), 2
                ),
                "least_agreement": f"{min(agreement):.6f}",
            }
        for worker in workers.values():
            worker.close()


def presets(folder: Path, count: int) -> Iterator[Row]:
    from ppl.refine.crf import PRESETS

    paths = pictures(folder, count)
    for name in PRESETS:
        for labels in (2, 3, 5, 21):
            yield compare(paths, name, labels)


def resident() -> float:
    """Return the largest resident set so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def memory(folder: Path, count: int) -> Iterator[Row]:
    for name in ("psa", "irn"):
        for labels in (3, 21):
            growth = {}
            for engine in ("theirs", "ours"):
                command = part_of(folder, "_memory", setting_of(name), f"{engine},{labels}")
                growth[engine] = float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            yield {
                "preset": name,
                "labels": labels,
                "pydensecrf_mb": round(growth["theirs"], 1),
                "native_mb": round(growth["ours"], 1),
                "native_share": round(growth["ours"] / growth["theirs"], 2),
            }


def part_of(folder: Path, what: str, preset: SimpleNamespace, part: str, count: int = 1) -> list[str]:
    """Return the command of a process that runs one engine alone."""
    setting = json.dumps(vars(preset))
    command = [sys.executable, __file__, str(folder), what, "--part", part, "--setting", setting]
    return [*command, "--images", str(count)]


def memory_part(folder: Path, preset: SimpleNamespace, part: str) -> None:
    engine, labels = part.split(",")
    function = ours if engine == "ours" else theirs
    image = read(pictures(folder, 1)[0])
    probs = maps_of(image, int(labels))
    # A small call first, so that code and libraries are in memory already.
    function(np.ascontiguousarray(image[:16, :16]), np.ascontiguousarray(probs[:, :16, :16]), preset)
    before = resident()
    function(image, probs, preset)
    print(resident() - before)


def timed_process(command: list[str], cache: str) -> tuple[float, float]:
    """Return wall and CPU seconds of a fresh process."""
    before, start = os.times(), time.perf_counter()
    subprocess.run(command, check=True, env={**os.environ, "NUMBA_CACHE_DIR": cache})
    after = os.times()
    used = after.children_user + after.children_system - before.children_user - before.children_system
    return time.perf_counter() - start, used


def cold(folder: Path, count: int) -> Iterator[Row]:
    """Time processes that read one image and refine it, `count` of each kind in turn."""
    kinds = {
        "native, first process": "ours",
        "native, later process": "ours",
        "pydensecrf": "theirs",
        "neither: NumPy, Pillow, reading": "none",
    }
    times: dict[str, list[tuple[float, float]]] = {kind: [] for kind in kinds}
    with tempfile.TemporaryDirectory() as caches:
        for number in range(count):
            for kind, part in kinds.items():
                command = part_of(folder, "_one", setting_of("psa"), part)
                times[kind].append(timed_process(command, f"{caches}/{number}"))
    for kind, found in times.items():
        wall, used = (statistics.median(column) for column in zip(*found, strict=True))
        yield {"process": kind, "times": count, "wall_s": round(wall, 2), "cpu_s": round(used, 2)}


def one_part(folder: Path, preset: SimpleNamespace, part: str) -> None:
    image = read(pictures(folder, 1)[0])
    probs = maps_of(image, 3)
    if part != "none":
        (ours if part == "ours" else theirs)(image, probs, preset)


def folder_of(folder: Path, count: int) -> Iterator[Row]:
    for name in ("psa", "irn"):
        walls = {}
        for part in ("theirs,1", "theirs,2", "ours,2"):
            with tempfile.TemporaryDirectory() as cache:
                wall, used = timed_process(part_of(folder, "_folder", setting_of(name), part, count), cache)
            walls[part] = wall
            yield {
                "preset": name,
                "engine": part,
                "images": count,
                "wall_s": round(wall, 2),
                "cpu_s": round(used, 2),
                "times_the_loop": round(walls["theirs,1"] / wall, 2),
                "times_two_processes": round(walls.get("theirs,2", 0) / wall, 2) or "",
            }


def folder_part(folder: Path, preset: SimpleNamespace, part: str, count: int) -> None:
    engine, workers = part.split(",")
    paths = pictures(folder, count)
    if engine == "ours":
        from ppl.refine.crf import crf_many

        images = (partial(read, path) for path in paths)
        maps = (partial(read_maps, path) for path in paths)
        name = next(name for name in ("psa", "irn") if setting_of(name) == preset)
        assert sum(1 for _ in crf_many(images, maps, preset=name, num_workers=int(workers))) == count
    elif workers == "1":
        for path in paths:
            their_job(path, preset)
    else:
        with ProcessPoolExecutor(int(workers)) as pool:
            assert sum(1 for _ in pool.map(their_job, paths, [preset] * count)) == count


def gpu(folder: Path, count: int) -> Iterator[Row]:
    """Count images per second of engines that are warm and find the arrays on their device."""
    import torch

    from ppl.refine.crf import crf_many

    if not torch.cuda.is_available():
        raise SystemExit("there is no CUDA device here")

    def run(images: list, maps: list, name: str) -> tuple[float, list]:
        list(crf_many(images[:4], maps[:4], preset=name))
        start = time.perf_counter()
        results = list(crf_many(images, maps, preset=name))
        torch.cuda.synchronize()
        return len(images) / (time.perf_counter() - start), results

    images = [read(path) for path in pictures(folder, count)]
    on_gpu = [torch.from_numpy(image).cuda() for image in images]
    for name in ("psa", "irn"):
        for labels in (3, 21):
            maps = [maps_of(image, labels) for image in images]
            on_cpu, expected = run(images, maps, name)
            batched, results = run(on_gpu, [torch.from_numpy(probs).cuda() for probs in maps], name)
            same = [
                float((result.argmax(0).cpu().numpy() == other.argmax(0)).mean())
                for result, other in zip(results, expected, strict=True)
            ]
            yield {
                "preset": name,
                "labels": labels,
                "images": count,
                "device": torch.cuda.get_device_name(),
                "cpu_cores": os.cpu_count(),
                "cpu_images_s": round(on_cpu, 1),
                "gpu_images_s": round(batched, 1),
                "ratio": round(batched / on_cpu, 2),
                "least_agreement": f"{min(same):.6f}",
            }


def read_maps(path: Path) -> np.ndarray:
    return maps_of(read(path), 3)


def their_job(path: Path, preset: SimpleNamespace) -> int:
    image = read(path)
    return int(theirs(image, maps_of(image, 3), preset).argmax(axis=0).max())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images_folder", type=Path)
    parser.add_argument("what")
    parser.add_argument("--images", type=int, help="how many; 12 by default, 200 for folder, 5 for cold, 64 for gpu")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--before", type=Path, help="another checkout of this repository, for `before`")
    parser.add_argument("--part", default="", help=argparse.SUPPRESS)
    parser.add_argument("--setting", type=json.loads, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.what.startswith("_"):
        preset = SimpleNamespace(**(options.setting or {}))
        if options.what == "_memory":
            memory_part(options.images_folder, preset, options.part)
        elif options.what == "_serve":
            serve_part(options.images_folder, options.part)
        elif options.what == "_one":
            one_part(options.images_folder, preset, options.part)
        else:
            folder_part(options.images_folder, preset, options.part, options.images)
        return
    tables = {
        "before": partial(against_before, checkout=options.before),
        "speed": speed,
        "presets": presets,
        "memory": memory,
        "cold": cold,
        "folder": folder_of,
        "gpu": gpu,
    }
    if options.what not in tables:
        parser.error(f"what must be one of {', '.join(tables)}")
    count = options.images or {"folder": 200, "cold": 5, "gpu": 64}.get(options.what, 12)
    rows = []
    for row in tables[options.what](options.images_folder, count):
        if not rows:
            print("  ".join(f"{key:>16}" for key in row))
        rows.append(row)
        print("  ".join(f"{value!s:>16}" for value in row.values()), flush=True)
    if options.out:
        with options.out.open("w", newline="") as handle:
            writer = csv.DictWriter(handle, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)


if __name__ == "__main__":
    main()
