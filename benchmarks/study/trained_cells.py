"""The networks that `train_cells.py` kept: their names, their weights and their maps."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from arms import ARMS
from cell import Budget

from ppl.cam import CamResult, iter_generate
from ppl.data import TaggedImages
from ppl.models import PPLNet, create_model

TAIL_KEYS = {"group3": "blocks.3", "group4": "blocks.4", "group5": "blocks.5", "group6": "blocks.6"} | {
    "head.0": "conv_head",
    "head.1": "bn2",
}
"""Modules of `features.Tail`, and their names in timm's whole network."""

CELL = re.compile(
    r"(?P<data>\w+-\d+)-(?P<backbone>\w+)-(?P<arm>\w+)-e(?P<length>\d+)-lr(?P<rate>.+)-\d+x\d+-s(?P<seed>\d+)"
)
"""The name of a cell, as `cell_name` writes it; `rate` holds the optimizer if that is not the usual one."""


def cell_name(data: str, arm: str, seed: int, options: argparse.Namespace) -> str:
    """Return the name of a cell; that of the usual optimizer is left out."""
    backbone, rate = backbone_of(options.weights), f"lr{options.lr:g}"
    if options.optimizer != Budget.optimizer:
        rate += f"-{options.optimizer}"
    height, width = options.size
    return f"{data}-{backbone}-{arm}-e{options.epochs}-{rate}-{height}x{width}-s{seed}"


def cells_parser(description: str | None) -> argparse.ArgumentParser:
    """Return the parser of a script that scores trained cells on a split."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("split")
    parser.add_argument("weights", type=Path)
    parser.add_argument("cells", type=Path, nargs="+", help="weights of one epoch each, as train_cells.py keeps them")
    return parser


def part(images: TaggedImages, words: str) -> TaggedImages:
    """Return the images of a slice that is written START:STOP:STEP."""
    return images[slice(*(int(word) if word else None for word in words.split(":")))]


def backbone_of(weights: Path) -> str:
    """Return timm's name of the network that a file of weights is named after."""
    return weights.stem.removesuffix("_imagenet")


def arm_of(cell: Path) -> str:
    """Return the arm of the weights of an epoch, which stands in the name of their folder."""
    return CELL.fullmatch(cell.parent.name)["arm"]


def load_cell(cell: Path, weights: Path, num_classes: int) -> PPLNet:
    """Return the whole network of the weights of an epoch; `weights` has the front, which did not learn."""
    network = build(arm_of(cell), weights, num_classes)
    trained = {_whole_key(key): value for key, value in torch.load(cell, weights_only=True)["model"].items()}
    network.load_state_dict(network.state_dict() | trained)
    return network


def build(arm: str, weights: Path, num_classes: int) -> PPLNet:
    """Return the network of an arm before its training."""
    own, names = ARMS[arm], {"front": "blocks.2"} | TAIL_KEYS
    network = create_model(
        backbone_of(weights),
        num_classes,
        mode=own.mode,
        cuts=[names[cut] for cut in own.cuts] or None,
        grids=own.grids if isinstance(own.grids, int) else list(own.grids),
        padding=own.padding,
        pooling=own.pooling,
        checkpoint_path=weights,
        output_stride=Budget.output_stride,
    )
    network.set_phase(network.num_phases - 1)
    return network.eval()


def cell_maps(cell: Path, images: TaggedImages, options: argparse.Namespace, **settings: Any) -> Iterator[CamResult]:
    """Yield the maps of all images, whose tags are known.

    Args:
        cell: weights of an epoch.
        images: images of the classes that the cell was trained on.
        options: has `weights` and `scales`.
        settings: further settings of `ppl.cam.generate`.
    """
    return iter_generate(
        load_cell(cell, options.weights, len(images.classes)),
        [sample.image for sample in images],
        [list(sample.labels) for sample in images],
        scales=options.scales,
        amp=True,
        **settings,
    )


def _whole_key(key: str) -> str:
    """Return the name that a weight of the tail has in the whole network."""
    for tail, whole in TAIL_KEYS.items():
        if key.startswith(f"backbone.{tail}."):
            return f"backbone.{whole}.{key.removeprefix(f'backbone.{tail}.')}"
    return key
