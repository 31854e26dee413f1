"""Ways to read a map off one trained cell: scales, stride, and the class map joined to further evidence.

That is LayerCAM of an earlier layer, or the class map of patches that the rest of the network sees one by one.

    python benchmarks/study/readings.py DATASET WEIGHTS --arm baseline --size 384 288 --images 0:168

The cell's weights are read from `--work`, where `run.py` kept them. The choice made here is `ppl.cam`'s
"sharpened_cam": it was made on the first 168 pictures of clothing's val, so the study scores it on others.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Callable
from itertools import product
from pathlib import Path

import torch
from arms import ARMS
from features import autocast, load_network, scored_groups
from run import HERE, front_file, kept, scored_part
from scoring import LAYER, Tally, evidence_of, folded, resized, whole_of
from torch import Tensor

from ppl.backbones import CutBackbone, data_config
from ppl.cam import CamResult
from ppl.cam.arithmetic import peak_one
from ppl.data import TaggedImages
from ppl.models import PPLNet

LAYERS = ("group3", "group4", "group5")
JOINED: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "class map": lambda class_map, evidence: class_map,
    "evidence alone": lambda class_map, evidence: evidence,
    "mean": lambda class_map, evidence: class_map + evidence,
    "product": lambda class_map, evidence: class_map * evidence,
    "product with its root": lambda class_map, evidence: class_map * evidence.sqrt(),
}
"""Both maps have their maximum at 1."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("weights", type=Path)
    parser.add_argument("--arm", default="baseline", choices=list(ARMS), metavar="ARM")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--lr", type=float, default=1e-4)
    parser.add_argument("--size", type=int, nargs=2, default=(256, 192))
    parser.add_argument("--stride", type=int, default=16, choices=[16, 8], help="of the final map; trained at 16")
    parser.add_argument("--scales", type=float, nargs="+", default=[1.0, 1.5, 2.0])
    parser.add_argument("--layers", nargs="*", default=LAYERS, choices=LAYERS)
    parser.add_argument("--grids", nargs="*", default=[], help="of patches cut after LAYER of scoring.py: 4x4 8x6")
    parser.add_argument("--own-views", action="store_true", help="the cell that trained on a pool of its own")
    parser.add_argument("--images", default=":", help="these pictures of val: START:STOP")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--work", type=Path, default=Path("runs/study"))
    parser.add_argument("--out", type=Path, default=HERE / "results" / "readings.csv")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    images = scored_part(options)
    model, _ = kept(options.arm, options.seed, len(images.classes), options, options.stride)
    model.requires_grad_(False)
    ways = [
        ("class map", ""),
        *product([name for name in JOINED if name != "class map"], [*options.layers, *options.grids]),
    ]
    found = evaluate(model, images, options, ways)
    settings = {
        "data": options.data.name,
        "arm": options.arm,
        "seed": options.seed,
        "size": "x".join(map(str, options.size)),
        "views": "own" if options.own_views else "shared",
        "stride": options.stride,
        "scales": " ".join(f"{scale:g}" for scale in options.scales),
        "images": options.images,
    }
    fresh = not options.out.exists()
    with options.out.open("a", newline="") as file:
        for (way, evidence), tally in found.items():
            scores = tally.compute()
            shown = {key: round(scores[key], 2) for key in ("miou_auto", "miou_best", "threshold")}
            row = settings | {"map": way, "evidence": evidence} | shown
            writer = csv.DictWriter(file, list(row))
            if fresh:
                writer.writeheader()
                fresh = False
            writer.writerow(row)
            print(way, evidence, shown)


@torch.inference_mode()
def evaluate(
    model: PPLNet, images: TaggedImages, options: argparse.Namespace, ways: list[tuple[str, str]]
) -> dict[tuple[str, str], Tally]:
    """Scores of every way; each picture passes the model once and each kind of evidence is computed once."""
    tallies = {way: Tally(images) for way in ways}
    targets = images.targets()
    cutter = CutBackbone(model.backbone, [LAYER], stages=model.backbone.stages, padding="replicate")
    network = load_network(options.weights, 16)
    for group in scored_groups(images, network, data_config(network), options.scales, front_file(options)):
        rows = [targets[number].nonzero().flatten() for number in group.members]
        counts = [len(row) for row in rows]
        which, classes = torch.arange(len(rows)).repeat_interleave(torch.tensor(counts)), torch.cat(rows)
        total = torch.zeros(len(which), *group.size)
        further = {name: torch.zeros_like(total) for name in (*options.layers, *options.grids)}
        for maps in group.maps:
            x = maps.flatten(0, 1).float().contiguous(memory_format=torch.channels_last)
            with autocast(x.device):
                branches = model.unpatched_class_maps(x)
            whole = whole_of(model, branches).float()
            total += resized(folded(whole.relu(), which, classes), group.size)
            for layer in options.layers:
                further[layer] += resized(evidence_of(layer, model, x, which, classes), group.size)
            for grid in options.grids:
                maps_of_patches = patched(model, cutter, x, tuple(map(int, grid.split("x"))))
                further[grid] += resized(folded(maps_of_patches, which, classes), group.size)
        for (way, evidence), tally in tallies.items():
            joined = JOINED[way](peak_one(total), peak_one(further[evidence]) if evidence else total)
            for number, own, row in zip(group.members, peak_one(joined).split(counts), rows, strict=True):
                tally.update(number, images[number].read_mask(), CamResult(own, row, torch.ones(len(row)), group.size))
    return tallies


def patched(model: PPLNet, cutter: CutBackbone, x: Tensor, grid: tuple[int, ...]) -> Tensor:
    """Class maps (B,K,h,w), 0 or more, of patches cut after `LAYER`, by the first branch, which learns from such."""
    rows, columns = grid
    with autocast(x.device):
        final, features = cutter.forward_features(x, (0,))
        stitched = cutter.patched(0, features[0], (rows, columns), (final.shape[-2], final.shape[-1]))
        return model.fusion.branch_class_maps([stitched] * len(model.fusion.in_channels))[0].float().relu()


if __name__ == "__main__":
    main()
