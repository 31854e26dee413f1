"""Methods of `cam.generate` against pytorch-grad-cam, torch-cam and bare forward passes, side by side in one run.

All read the same layer of the same model, for the same images and labels, at one scale. pytorch-grad-cam and torch-cam
make one class per image and pass. Processor time; the peers take turns in every repeat.

    python benchmarks/cam/peers.py --csv benchmarks/cam/results/peers.csv
"""

from __future__ import annotations

import argparse
import csv
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import pytorch_grad_cam
import timm
import torch
import torchcam.methods
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import Tensor, nn

from ppl.cam import generate
from ppl.cam.make_classifier import make_classifier

METHODS = {
    "gradcam": ("GradCAM", "GradCAM"),
    "gradcam++": ("GradCAMPlusPlus", "GradCAMpp"),
    "hirescam": ("HiResCAM", None),
    "layercam": ("LayerCAM", "LayerCAM"),
}


def of_tokens(x: Tensor) -> Tensor:
    """Tokens without the class token as a square map."""
    side = round((x.shape[1] - 1) ** 0.5)
    return x[:, 1:].unflatten(1, (side, side)).permute(0, 3, 1, 2)


def their_maps(name: str, model: nn.Module, layer: nn.Module, x: Tensor, labels: int) -> None:
    """One call of pytorch-grad-cam for each class."""
    reshape = of_tokens if hasattr(model, "patch_embed") else None
    with getattr(pytorch_grad_cam, name)(model, [layer], reshape_transform=reshape) as cam:
        for label in range(labels):
            cam(x, [ClassifierOutputTarget(label)] * len(x))


def torch_cam_maps(name: str, model: nn.Module, layer: nn.Module, x: Tensor, labels: int) -> None:
    """One forward pass and one call of torch-cam for each class."""
    with getattr(torchcam.methods, name)(model, layer) as cam:
        for label in range(labels):
            cam([label] * len(x), model(x))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backbones", nargs="+", default=["resnet50", "convnext_tiny", "vit_small_patch16_224"])
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--size", type=int, default=320)
    parser.add_argument("--labels", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--csv", type=Path, default=Path("cam_peers.csv"))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rows = []
    for backbone in options.backbones:
        size = {"img_size": options.size} if backbone.startswith("vit") else {}
        model = timm.create_model(backbone, pretrained=False, **size).eval()
        x = torch.randn(options.images, 3, options.size, options.size)
        labels = [list(range(options.labels))] * options.images
        layer = model.get_submodule(make_classifier(model).default_layer)
        rows += measure(backbone, contenders(model, layer, x, labels), options.repeats)
        print(*rows[-len(METHODS) * 3 - 2 :], sep="\n", flush=True)
        with options.csv.open("w", newline="") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)


def contenders(
    model: nn.Module, layer: nn.Module, x: Tensor, labels: list[list[int]]
) -> dict[tuple[str, str], Callable[[], object]]:
    """The calls to measure, by library and method."""
    common = {"scales": [1.0], "flip": False, "batch_size": len(x)}

    def bare() -> None:
        with torch.inference_mode():
            model(x)

    found: dict[tuple[str, str], Callable[[], object]] = {
        ("bare", ""): bare,
        ("ppl", "auto"): lambda: generate(model, x, labels, **common),
    }
    for method, (name, other) in METHODS.items():
        found["ppl", method] = lambda method=method: generate(model, x, labels, method=method, layer=layer, **common)
        found["pytorch-grad-cam", method] = lambda name=name: their_maps(name, model, layer, x, len(labels[0]))
        if other is not None and not hasattr(model, "patch_embed"):
            found["torch-cam", method] = lambda other=other: torch_cam_maps(other, model, layer, x, len(labels[0]))
    return found


def measure(backbone: str, calls: dict[tuple[str, str], Callable[[], object]], repeats: int) -> list[dict[str, object]]:
    """Seconds of each call and how many bare forward passes that is, medians over the repeats."""
    seconds: dict[tuple[str, str], list[float]] = {key: [] for key in calls}
    calls["bare", ""]()
    calls["ppl", "auto"]()
    for _ in range(repeats):
        for key, call in calls.items():
            start = time.process_time()
            call()
            seconds[key].append(time.process_time() - start)
    bare = statistics.median(seconds["bare", ""])
    medians = {key: statistics.median(values) for key, values in seconds.items()}
    return [
        {
            "backbone": backbone,
            "library": library,
            "method": method,
            "seconds": round(median, 3),
            "of_bare": round(median / bare, 2),
        }
        for (library, method), median in medians.items()
    ]


if __name__ == "__main__":
    main()
