"""Time of a patched branch against the un-patched tail from the same stage, forward and backward.

    python benchmarks/backbones/patched_tail.py --out patched_tail.csv [--batch 8 --sizes 256 --grid 2 --repeats 7]

The passes alternate in one run, in CPU time of one thread; ratios are ratios of medians. The un-patched tail is made of
the model's own layers after the cut, on the same features; the patched branch is `CutBackbone.patched`, with dummy
image, cutting and merging. `floor` is the time of the same layers on patches that were cut beforehand: a lower bound
for any implementation, as windows and kernels fit small maps less well.
"""

from __future__ import annotations

import argparse
import csv
import statistics
import time
from collections.abc import Callable, Sequence

import timm
import torch
from torch import Tensor, nn

from ppl.backbones import CutBackbone, default_cuts, resolve_stages
from ppl.layers import patch_destruct

MODELS = ("resnet50", "regnety_032", "convnext_tiny", "efficientnet_b0", "swin_tiny_patch4_window7_224")


def tail_of(model: nn.Module, stage: str) -> Callable[[Tensor], Tensor]:
    """Return the layers after a stage, chained by hand for the families of this benchmark."""
    kind = type(model).__name__
    order = {
        "ResNet": ["layer1", "layer2", "layer3", "layer4"],
        "RegNet": ["s1", "s2", "s3", "s4", "final_conv"],
        "ConvNeXt": ["stages.0", "stages.1", "stages.2", "stages.3", "norm_pre"],
        "EfficientNet": [*(f"blocks.{i}" for i in range(7)), "conv_head", "bn2"],
        "SwinTransformer": ["layers.0", "layers.1", "layers.2", "layers.3", "norm"],
    }[kind]
    return nn.Sequential(*(model.get_submodule(name) for name in order[order.index(stage) + 1 :]))


def seconds(run: Callable[[], Tensor], backward: bool) -> float:
    start = time.process_time()
    if backward:
        run().square().mean().backward()
    else:
        with torch.no_grad():
            run()
    return time.process_time() - start


def compare(name: str, batch: int, size: int, grid: int, repeats: int, backward: bool) -> list[dict[str, object]]:
    model = timm.create_model(name, pretrained=False, num_classes=0).eval()
    cuts = default_cuts(resolve_stages(model))
    cutter = CutBackbone(model, cuts)
    with torch.no_grad():
        final, features = cutter.forward_features(torch.randn(batch, 3, size, size), range(len(cuts)))
    shape = (int(final.shape[-2]), int(final.shape[-1]))
    rows: list[dict[str, object]] = []
    for index, cut in enumerate(cuts):
        tail, raw = tail_of(model, cut), features[index].detach()
        if not torch.equal(cutter.resume(index, raw[:1]).flatten(1).sum(), _map(tail(raw[:1]), final).flatten(1).sum()):
            raise SystemExit(f"the hand-made tail of {name} after {cut} is not the model's own")
        pairs: list[tuple[float, float, float]] = []
        patches = patches_of(raw, grid, cutter.tail_stride(index), cutter.cuts[index].layout)
        for repeat in range(repeats + 1):
            patched = seconds(lambda i=index, raw=raw: cutter.patched(i, raw, grid, shape), backward)  # type: ignore[misc]
            whole = seconds(lambda tail=tail, raw=raw: tail(raw), backward)  # type: ignore[misc]
            least = seconds(lambda tail=tail, patches=patches: tail(patches), backward)  # type: ignore[misc]
            if repeat:  # The first round warms up.
                pairs.append((patched, whole, least))
        patched, whole, least = (statistics.median(column) for column in zip(*pairs, strict=True))
        row: dict[str, object] = {
            "model": name,
            "cut": cut,
            "mode": "forward+backward" if backward else "forward",
            "batch": batch,
            "size": size,
            "patched_s": round(patched, 4),
            "tail_s": round(whole, 4),
            "ratio": round(patched / whole, 3),
            "floor": round(least / whole, 3),
        }
        rows.append(row)
        print(
            "{model:<30} {cut:<9} {mode:<17} {size:>4} {patched_s:9} {tail_s:9} {ratio:7} {floor:7}".format(**row),
            flush=True,
        )
    return rows


def patches_of(raw: Tensor, grid: int, stride: int, layout: str) -> Tensor:
    """Return the patches of `CutBackbone.patched`, cut beforehand."""
    if layout == "NHWC":
        return patch_destruct(raw.permute(0, 3, 1, 2), grid, multiple=(stride, stride)).permute(0, 2, 3, 1).contiguous()
    return patch_destruct(raw, grid, multiple=(stride, stride))


def _map(output: Tensor, final: Tensor) -> Tensor:
    return output if output.shape[1] == final.shape[1] else output.permute(0, 3, 1, 2)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", default="patched_tail.csv")
    parser.add_argument("--models", nargs="+", default=list(MODELS))
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--sizes", type=int, nargs="+", default=[256])
    parser.add_argument("--grid", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--backward", action="store_true", help="time forward and backward instead of forward alone")
    options = parser.parse_args(argv)
    torch.manual_seed(0)
    torch.set_num_threads(1)  # Waiting threads use CPU time.
    columns = ("model", "cut", "mode", "size", "patched s", "tail s", "ratio", "floor")
    print("{:<30} {:<9} {:<17} {:>4} {:>9} {:>9} {:>7} {:>7}".format(*columns))
    rows = []
    for name in options.models:
        for size in options.sizes:
            rows += compare(name, options.batch, size, options.grid, options.repeats, options.backward)
    with open(options.out, "w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
