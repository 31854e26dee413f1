"""Maps of every timm family: one variant after the other as a classifier with its own head, at its own image size.

Each row of the table says how `method="auto"` reads the variant, or why the variant is refused.

    python benchmarks/cam/coverage.py --variants VARIANTS.tsv --csv benchmarks/cam/results/coverage.csv
"""

from __future__ import annotations

import argparse
import csv
import gc
import time
from collections.abc import Iterator
from pathlib import Path

import timm
import torch

from ppl.cam import generate
from ppl.cam.make_classifier import make_classifier
from ppl.errors import PPLError

COLUMNS = ("module", "variant", "size", "read_by", "layer", "map", "seconds", "refusal")


def variants_of(path: Path) -> Iterator[tuple[str, str]]:
    """Yield the timm module and the name of every variant."""
    rows = [line for line in path.read_text().splitlines() if line and not line.startswith("#")]
    for row in csv.DictReader(rows, delimiter="\t"):
        yield row["module"], row["variant"]


def try_variant(module: str, variant: str) -> dict[str, str]:
    """Return the row of one variant; errors that are no refusal are raised."""
    torch.manual_seed(0)
    own = timm.get_pretrained_cfg(variant)
    head = {} if own is None or own.num_classes else {"num_classes": 1000}  # published without a head
    model = timm.create_model(variant, pretrained=False, **head).eval()
    height, width = model.pretrained_cfg["input_size"][1:]
    row = {"module": module, "variant": variant, "size": f"{height}x{width}"}
    start = time.perf_counter()
    try:
        classifier = make_classifier(model)
        exact = classifier.has_class_maps
        layer = classifier.dry_run.last if exact else classifier.default_layer
        for method in ("auto", "gradcam"):
            image = torch.randn(1, *model.pretrained_cfg["input_size"])
            (result,) = generate(model, image, [[0, 1]], scales=[1.0], flip=False, method=method)
            assert result.maps.shape == (2, height, width), f"maps of shape {tuple(result.maps.shape)}"
            assert result.maps.isfinite().all(), "maps that are not finite"
    except PPLError as error:
        return row | {"refusal": str(error)}
    cells = classifier.dry_run.layouts[str(layer)].size
    at = classifier.dry_run.size
    cells_at_size = "x".join(
        str(round(n * own / tried)) for n, own, tried in zip(cells, (height, width), at, strict=True)
    )
    seconds = f"{time.perf_counter() - start:.1f}"
    return row | {
        "read_by": "cam" if exact else "hirescam",
        "layer": str(layer),
        "map": cells_at_size,
        "seconds": seconds,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--variants", type=Path, required=True, help="table with the columns module and variant")
    parser.add_argument("--only", nargs="*", default=[], help="names of variants")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--csv", type=Path, default=Path("cam_coverage.csv"))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    with options.csv.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, restval="")
        writer.writeheader()
        for module, variant in variants_of(options.variants):
            if options.only and variant not in options.only:
                continue
            try:
                row = try_variant(module, variant)
            except Exception as error:  # a failure of any kind is what this table is made to find
                row = {"module": module, "variant": variant, "refusal": f"FAILED {type(error).__name__}: {error}"}
            writer.writerow(row)
            file.flush()
            print(row, flush=True)
            gc.collect()


if __name__ == "__main__":
    main()
