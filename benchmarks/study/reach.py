"""How far a cell of the class map sees: the effective receptive field of trained cells (Luo et al., NeurIPS 2016).

    python benchmarks/study/reach.py DATASET WEIGHTS --arms baseline progressive --seeds 0 1 2

For each picture of `val`, the strongest cell of the map of each of its tags: within how many pixels of it lies half,
and 90%, of the absolute gradient by the map of the front (stride 8)? `results/reach.csv` has the median over pictures
and tags; the front's own field comes on top, for all arms alike. Weights are read from `--work`, where `run.py` left
them. `initial` is the network before training, with the first weights of the classifier.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from arms import ARMS
from cell import Budget, build
from features import STRIDE, load_network, scored_groups
from run import HERE, append, front_file, kept, scored_part
from scoring import whole_of
from torch import Tensor

from ppl.backbones import data_config
from ppl.data import TaggedImages
from ppl.models import PPLNet

SHARES = (0.5, 0.9)


def radii(model: PPLNet, maps: Tensor, row: Tensor) -> Tensor:
    """Pixels (k, 2) around the strongest cell of each of k classes that hold SHARES of its gradient.

    `maps` is the front's map (1, C, h, w) of a picture.
    """
    x = maps.float().expand(len(row), -1, -1, -1).contiguous(memory_format=torch.channels_last).requires_grad_()
    cells = whole_of(model, model.unpatched_class_maps(x))[range(len(row)), row]
    peaks = cells.flatten(1).argmax(dim=1)
    (gradient,) = torch.autograd.grad(cells.flatten(1).gather(1, peaks[:, None]).sum(), x)
    height, width = gradient.shape[-2:]
    top, left = torch.div(peaks, cells.shape[-1], rounding_mode="floor"), peaks % cells.shape[-1]
    # centres of the cells, in pixels
    rows = torch.arange(height) * STRIDE + STRIDE / 2
    columns = torch.arange(width) * STRIDE + STRIDE / 2
    down = rows - ((top + 0.5) * height * STRIDE / cells.shape[-2])[:, None]
    across = columns - ((left + 0.5) * width * STRIDE / cells.shape[-1])[:, None]
    distance = (down[:, :, None] ** 2 + across[:, None] ** 2).sqrt().flatten(1)
    near_to_far = distance.argsort(dim=1)
    held = gradient.abs().sum(1).flatten(1).gather(1, near_to_far).cumsum(dim=1)
    held = held / held[:, -1:]
    last = torch.stack([(held < share).sum(dim=1) for share in SHARES], dim=1)
    return distance.gather(1, near_to_far).gather(1, last)


def reach_of(model: PPLNet, images: TaggedImages, options: argparse.Namespace) -> list[float]:
    network = load_network(options.weights, 16)
    model.requires_grad_(False).eval()
    targets, found = images.targets(), []
    for group in scored_groups(images, network, data_config(network), options.scales, front_file(options)):
        for number, maps in zip(group.members, group.maps[0], strict=True):
            row = targets[number].nonzero().flatten()
            if len(row):
                found.append(radii(model, maps[:1], row))
    return torch.cat(found).median(dim=0).values.tolist()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("weights", type=Path)
    parser.add_argument("--arms", nargs="+", default=["baseline", "progressive"], choices=[*ARMS, "initial"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--lr", type=float, default=1e-4)
    parser.add_argument("--scales", type=float, nargs="+", default=[1.0, 1.5], help="the first is measured")
    parser.add_argument("--size", type=int, nargs=2, default=(256, 192), help="of the crops of training")
    parser.add_argument("--own-views", action="store_true", help="the cells that trained on pools of their own")
    parser.add_argument("--images", default=":", help="these pictures of val: START:STOP")
    parser.add_argument("--work", type=Path, default=Path("runs/study"))
    parser.add_argument("--out", type=Path, default=HERE / "results" / "reach.csv")
    options = parser.parse_args()
    images = scored_part(options)
    for arm in options.arms:
        for seed in options.seeds:
            if arm == "initial":
                torch.manual_seed(seed)
                model = build(ARMS["baseline"], len(images.classes), options.weights, Budget.output_stride)
            else:
                model, _ = kept(arm, seed, len(images.classes), options)
            half, most = reach_of(model, images, options)
            print(f"{arm} {seed}: half of the gradient within {half:.0f} pixels, 90% within {most:.0f}", flush=True)
            row = {
                "data": options.data.name,
                "arm": arm,
                "seed": seed,
                "size": "x".join(map(str, options.size)),
                "views": "own" if options.own_views else "shared",
                "images": options.images,
                "half_px": round(half, 1),
                "most_px": round(most, 1),
            }
            append(options.out, row)


if __name__ == "__main__":
    main()
