"""`cam.generate` with scales and mirror images against the bare forward passes on the same pixels.

The peer runs nothing but the network (`forward_features`, or all branches of a patch-learning model) on batches that
were scaled and mirrored beforehand. Runs are interleaved and the median of processor time is taken, of wall time on a
GPU.

    python benchmarks/cam/speed.py --backbone resnet18 --images 16
"""

from __future__ import annotations

import argparse
import csv
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ppl.cam import generate
from ppl.models import create_model

SCALES = (1.0, 0.5, 1.5, 2.0)


def make_batches(images: list[Tensor], batch_size: int) -> list[Tensor]:
    """Return the batches that `generate` runs: images of equal size at every scale, with their mirror images."""
    groups: dict[torch.Size, list[Tensor]] = {}
    for image in images:
        groups.setdefault(image.shape, []).append(image)
    batches = []
    for members in groups.values():
        for start in range(0, len(members), batch_size):
            x = torch.stack(members[start : start + batch_size])
            for scale in SCALES:
                size = [round(pixels * scale) for pixels in x.shape[-2:]]
                scaled = F.interpolate(x, size, mode="bilinear", align_corners=False)
                batches.append(torch.cat((scaled, scaled.flip(-1))))
    return batches


def now(device: torch.device) -> float:
    """Return the processor time on a CPU, and the wall time after all work on a GPU is done."""
    if device.type == "cpu":
        return time.process_time()
    torch.cuda.synchronize(device)
    return time.perf_counter()


@torch.inference_mode()
def run_bare(forward: Callable[[Tensor], object], batches: list[Tensor]) -> None:
    for batch in batches:
        forward(batch)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backbone", default="resnet18")
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument("--height", type=int, default=188)
    parser.add_argument("--width", type=int, default=250)
    parser.add_argument("--classes", type=int, default=2, help="classes per image")
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"))
    parser.add_argument("--csv", type=Path, default=Path("cam_speed.csv"))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)

    classifier = timm.create_model(options.backbone, num_classes=20).eval()
    baseline = create_model(options.backbone, 20, mode="baseline", pretrained=False).eval()
    progressive = create_model(options.backbone, 20, pretrained=False).eval()
    contenders: dict[str, tuple[nn.Module, str, Callable[[Tensor], object]]] = {
        "timm classifier": (classifier, "cam", classifier.forward_features),
        "baseline": (baseline, "cam", baseline.backbone.forward_features),
        "progressive": (progressive, "cam", progressive._branches),
        "baseline, sharpened_cam": (baseline, "sharpened_cam", baseline.backbone.forward_features),
    }
    for model in (classifier, baseline, progressive):
        model.to(options.device)
    half = options.images // 2  # Landscape and portrait, as in most collections.
    sizes = [(options.height, options.width)] * (options.images - half) + [(options.width, options.height)] * half
    images = [torch.randn(3, *size) for size in sizes]
    labels = [list(range(options.classes))] * len(images)
    batches = [batch.to(options.device) for batch in make_batches(images, options.batch_size)]

    rows = []
    for name, (model, method, forward) in contenders.items():
        generated, bare = [], []
        for repeat in range(options.repeats + 1):
            start = now(options.device)
            generate(
                model,
                images,
                labels,
                scales=SCALES,
                method=method,
                branch="all" if method == "cam" else "unpatched",
                batch_size=options.batch_size,
            )
            middle = now(options.device)
            run_bare(forward, batches)
            end = now(options.device)
            if repeat:  # The first round warms up.
                generated.append(middle - start)
                bare.append(end - middle)
        ratio = statistics.median(one / other for one, other in zip(generated, bare, strict=True))
        rows.append(
            {
                "model": name,
                "backbone": options.backbone,
                "images": len(images),
                "generate_s": round(statistics.median(generated), 3),
                "bare_s": round(statistics.median(bare), 3),
                "ratio": round(ratio, 3),
            }
        )
    print("".join(f"{key:>19}" for key in rows[0]))
    for row in rows:
        print("".join(f"{value:>19}" for value in row.values()))
    with options.csv.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
