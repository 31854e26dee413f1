"""Maps of every timm family: one variant after the other as a classifier with its own head, at its own image size.

Each row of the table says how `method="auto"` reads the variant, or why the variant is refused.

    python benchmarks/cam/coverage.py --variants VARIANTS.tsv --csv benchmarks/cam/results/coverage.csv
    python benchmarks/cam/coverage.py --csv benchmarks/cam/results/coverage_torchvision.csv

Without a table of timm's variants, the smallest network of every family of torchvision is tried.
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
import torchvision
from torch import nn

from ppl.cam import generate
from ppl.cam.make_classifier import make_classifier
from ppl.errors import PPLError

COLUMNS = ("module", "variant", "size", "read_by", "layer", "map", "seconds", "refusal")


FAMILIES = (
    *("alexnet", "convnext_tiny", "densenet121", "efficientnet_b0", "efficientnet_v2_s", "googlenet", "inception_v3"),
    *("maxvit_t", "mnasnet0_5", "mobilenet_v2", "mobilenet_v3_small", "regnet_x_400mf", "regnet_y_400mf", "resnet18"),
    *("resnext50_32x4d", "shufflenet_v2_x0_5", "squeezenet1_1", "swin_t", "swin_v2_t", "vgg11", "vit_b_16"),
    "wide_resnet50_2",
)
"""The smallest network of every family of torchvision's classifiers."""


def variants_of(path: Path) -> Iterator[tuple[str, str]]:
    """Yield the timm module and the name of every variant."""
    rows = [line for line in path.read_text().splitlines() if line and not line.startswith("#")]
    for row in csv.DictReader(rows, delimiter="\t"):
        yield row["module"], row["variant"]


def try_variant(module: str, variant: str) -> dict[str, str]:
    """Return the row of one variant of timm."""
    torch.manual_seed(0)
    own = timm.get_pretrained_cfg(variant)
    head = {} if own is None or own.num_classes else {"num_classes": 1000}  # published without a head
    model = timm.create_model(variant, pretrained=False, **head).eval()
    return try_model(module, variant, model, model.pretrained_cfg["input_size"])


def try_family(name: str) -> dict[str, str]:
    """Return the row of one network of torchvision."""
    torch.manual_seed(0)
    weights = torchvision.models.get_model_weights(name).DEFAULT
    settings = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    model = torchvision.models.get_model(name, weights=None, **settings).eval()
    for parameter in model.parameters():
        if parameter.ndim > 1 and not parameter.any():  # new heads of vision transformers: the logits depend on nothing
            torch.nn.init.normal_(parameter, std=0.02)
    side = max(weights.meta["min_size"][0], 299 if name == "inception_v3" else 224)
    return try_model(torchvision.models.get_model_builder(name).__module__, name, model, (3, side, side))


def try_model(module: str, variant: str, model: nn.Module, input_size: tuple[int, int, int]) -> dict[str, str]:
    """Return the row of a classifier; errors that are no refusal are raised."""
    height, width = input_size[1:]
    row = {"module": module, "variant": variant, "size": f"{height}x{width}"}
    start = time.perf_counter()
    try:
        classifier = make_classifier(model)
        exact = classifier.has_class_maps
        layer = classifier.dry_run.last if exact else classifier.default_layer
        for method in ("auto", "gradcam"):
            image = torch.randn(1, *input_size)
            kind = "feature" if method == "auto" else "image"
            (result,) = generate(model, image, [[0, 1]], scales=[1.0], flip=False, method=method, size=kind)
            if method == "auto":
                cells = "x".join(map(str, result.maps.shape[1:]))
            else:
                assert result.maps.shape == (2, height, width), f"maps of shape {tuple(result.maps.shape)}"
            assert result.maps.isfinite().all(), "maps that are not finite"
    except PPLError as error:
        return row | {"refusal": str(error)}
    seconds = f"{time.perf_counter() - start:.1f}"
    return row | {
        "read_by": "cam" if exact else "hirescam",
        "layer": str(layer),
        "map": cells,
        "seconds": seconds,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--variants", type=Path, help="table of timm's, with the columns module and variant")
    parser.add_argument("--only", nargs="*", default=[], help="names of variants")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--csv", type=Path, default=Path("cam_coverage.csv"))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    with options.csv.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, restval="")
        writer.writeheader()
        timms = [] if options.variants is None else variants_of(options.variants)
        for module, variant in timms or [("torchvision", name) for name in FAMILIES]:
            if options.only and variant not in options.only:
                continue
            try:
                row = try_family(variant) if module == "torchvision" else try_variant(module, variant)
            except Exception as error:  # a failure of any kind is what this table is made to find
                row = {"module": module, "variant": variant, "refusal": f"FAILED {type(error).__name__}: {error}"}
            writer.writerow(row)
            file.flush()
            print(row, flush=True)
            gc.collect()


if __name__ == "__main__":
    main()
