"""Score a network that `ppl train` or `ppl run` trained as the study scores its cells.

    python benchmarks/study/score_run.py DATASET WEIGHTS runs/clothing-baseline/last.safetensors --images 168:419

The run must have kept the stages up to `blocks.2` as they were in WEIGHTS, as the study's recipes have it. Rows go to
`results/trained_by_ppl.csv`.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import torch
from cell import Arm, build
from features import FRONT, load_network, scored_groups
from run import HERE, append, front_file, rounded, scored_part, summary
from scoring import LAYER, score
from torch import nn

import ppl
from ppl.backbones import data_config
from ppl.models import PPLNet

HEAD = {"conv_head": "head.0", "bn2": "head.1"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("weights", type=Path, help="that the training began with")
    parser.add_argument("trained", type=Path)
    parser.add_argument("--name", default="", help="what the rows are called")
    parser.add_argument("--scales", type=float, nargs="+", default=[1.0, 1.5, 2.0])
    parser.add_argument("--images", default=":", help="these pictures of val: START:STOP")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--work", type=Path, default=Path("runs/study"))
    parser.add_argument("--out", type=Path, default=HERE / "results" / "trained_by_ppl.csv")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    trained, network = ppl.load_model(options.trained), load_network(options.weights, 16)
    if not same_front(trained.backbone, network):
        raise SystemExit(f"{options.trained}: the stages up to blocks.{FRONT - 1} are not those of {options.weights}")
    model = tail_of(trained, options.weights)
    images = scored_part(options)
    groups = scored_groups(images, network, data_config(network), options.scales, front_file(options))
    for row in score(model, groups, images, ("whole", "layercam"), crf=False):
        scored = rounded({key: value for key, value in row.items() if not key.startswith("crf_")})
        append(options.out, {"data": options.data.name, "name": options.name, "images": options.images} | scored)
        print(summary(row))


def same_front(one: nn.Module, other: nn.Module) -> bool:
    """Whether two networks agree up to the stage that does not learn."""
    ours, theirs = one.blocks[:FRONT].state_dict(), other.blocks[:FRONT].state_dict()
    return all(torch.equal(value, theirs[key]) for key, value in ours.items())


def tail_of(trained: PPLNet, weights: Path) -> PPLNet:
    """The learned part of a trained network as the study builds it."""
    if trained.mode not in ("baseline", "progressive"):
        raise SystemExit(f"the run's mode is {trained.mode}; baseline and progressive are read here")
    # maps of the un-patched branch are the same wherever the cuts are
    arm = Arm(trained.mode, (LAYER,) if trained.cuts else (), pooling=trained.config["pooling"])
    model = build(arm, trained.num_classes, weights, 16)
    model.load_state_dict({new: value for key, value in trained.state_dict().items() if (new := renamed(key))})
    return model.to(memory_format=torch.channels_last).eval()


def renamed(key: str) -> str | None:
    """The study's name of a parameter; None if it belongs to the front."""
    if match := re.fullmatch(r"backbone\.blocks\.(\d+)\.(.+)", key):
        return f"backbone.group{match[1]}.{match[2]}" if int(match[1]) >= FRONT else None
    if match := re.fullmatch(r"backbone\.(\w+)\.(.+)", key):
        return f"backbone.{HEAD[match[1]]}.{match[2]}" if match[1] in HEAD else None
    return key


if __name__ == "__main__":
    main()
