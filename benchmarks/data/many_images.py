"""Time and memory per image of everything that a run does with all images at once, at growing numbers of images.

    python benchmarks/data/many_images.py [--images 25000 50000 100000] [--csv many_images.csv]

A data set of tiny pictures (hard links to a JPEG of 2x2 pixels) is opened, screened, hashed for the record, and its
results are looked up in a folder with one file per image. Each number of images has a process of its own. A step is
linear if its microseconds per image stay the same, and memory is if the bytes per image do. Folders listed are counted.
"""

from __future__ import annotations

import argparse
import csv
import gc
import json
import multiprocessing
import os
import resource
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image
from rich.console import Console
from rich.table import Table


def make_set(root: Path, count: int) -> None:
    """Write a data set in the library's layout, with 1000 pictures per folder, and one result per image."""
    Image.new("RGB", (2, 2)).save(root / "one.jpg")
    contents = {"images": (".jpg", (root / "one.jpg").read_bytes()), "results": (".png", b"a mask")}
    rows = ["image,labels"]
    for number in range(count):
        name = f"{number // 1000:04}/{number:07}"
        for folder, (suffix, content) in contents.items():
            path = root / folder / f"{name}{suffix}"
            if number % 1000 == 0:  # file systems limit the links to one file
                path.parent.mkdir(parents=True)
                path.write_bytes(content)
            else:
                os.link(root / folder / f"{number // 1000:04}/{number // 1000 * 1000:07}{suffix}", path)
        rows.append(f"{name}.jpg,{'cat' if number % 2 else 'dog'}")
    (root / "labels.csv").write_text("\n".join(rows))
    (root / "classes.txt").write_text("cat\ndog\n")
    (root / "train.txt").write_text("\n".join(row.split(",")[0] for row in rows[1:]))


@contextmanager
def counted_listings() -> Iterator[list[int]]:
    """Count the folders that are listed."""
    usual, calls = os.scandir, [0]

    def scandir(*args: Any) -> Any:
        calls[0] += 1
        return usual(*args)

    os.scandir = scandir  # type: ignore[assignment]
    try:
        yield calls
    finally:
        os.scandir = usual


def resident() -> int:
    """Bytes of memory of this process now."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def measure(count: int, found: Any) -> None:
    from ppl.data import check_images, open_dataset
    from ppl.pipeline.cams import cam_keys
    from ppl.pipeline.recipe import CamRecipe
    from ppl.pipeline.results import ResultFolder

    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder:
        root, kept, rows = Path(folder), {}, []
        make_set(root, count)

        def step(name: str, work: Callable[[], Any]) -> Any:
            before, start = resident(), time.process_time()
            with counted_listings() as listings:
                result = work()
            seconds = time.process_time() - start
            kept[name] = result
            rows.append(
                {
                    "images": count,
                    "step": name,
                    "microseconds per image": round(1e6 * seconds / count, 1),
                    "bytes kept per image": max(0, round((resident() - before) / count)),
                    "folders listed": listings[0],
                }
            )
            return result

        images = step("open", lambda: open_dataset(root))
        step("open a split", lambda: open_dataset(root, "train"))
        step("screen", lambda: check_images(images, num_workers=1, progress=False)[0])
        keys = step("hash", lambda: cam_keys(images, CamRecipe(), 1))
        results = ResultFolder(root / "results", ".png", {"setting": 1})
        results.record.begin(results.settings)

        def finish() -> None:
            for image_id, key in keys.items():
                results.finish(image_id, key)

        step("record", finish)
        step("read record", lambda: ResultFolder(root / "results", ".png", {"setting": 1}))
        step("look up", lambda: results.unfinished(keys))
        step("begin", lambda: results.begin(keys))
        step("subset", lambda: images.subset(images.image_ids))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        rows.append({"images": count, "step": "peak of the process, MiB", "bytes kept per image": peak >> 20})
    found.put(json.dumps(rows))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--images", type=int, nargs="+", default=[25_000, 50_000, 100_000])
    parser.add_argument("--csv", type=Path)
    options = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    rows: list[dict[str, Any]] = []
    for count in options.images:
        found = context.Queue()
        process = context.Process(target=measure, args=(count, found))
        process.start()
        rows += json.loads(found.get())
        process.join()
    columns = ("images", "step", "microseconds per image", "bytes kept per image", "folders listed")
    table = Table(header_style="bold")
    for column in columns:
        table.add_column(column, justify="left" if column == "step" else "right")
    for row in rows:
        table.add_row(*(str(row.get(column, "")) for column in columns))
    Console().print(table)
    if options.csv:
        with options.csv.open("w", newline="") as file:
            writer = csv.DictWriter(file, columns, lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)


if __name__ == "__main__":
    main()
