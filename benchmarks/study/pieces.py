"""Measure how well trained cells name a piece of an image that shows a head, and a piece that shows a body without one.

    python benchmarks/study/pieces.py DATASET SPLIT WEIGHTS EPOCH.pt ... --grids 2 4

Each image with one tag and a mask of parts (1 head, 2 body) is cut into pieces, which the un-patched network sees one
by one at their own size. A piece is named right if the logit of the tag is the highest of all classes. Pieces without
the object show how far surroundings and frequent classes alone lead. Rows that are in the file already are passed over.
"""

from __future__ import annotations

from collections import defaultdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from score_maps import HERE, append, is_known, percent
from torch import Tensor, nn
from trained_cells import cells_parser, load_cell

from ppl.backbones import data_config
from ppl.data import PartMasks, TaggedImages, open_dataset

HEAD, BODY = 1, 2
KINDS = ("head", "body", "object", "background")


def main() -> None:
    parser = cells_parser(__doc__)
    parser.add_argument("--grids", type=int, nargs="+", default=[2, 4], help="pieces along each side")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "pieces.csv")
    options = parser.parse_args()
    torch.set_num_threads(1)
    images = open_dataset(options.data, options.split)
    for cell in options.cells:
        model = None
        for grid in options.grids:
            row = {"data": options.data.name, "split": options.split, "cell": f"{cell.parent.name}/{cell.stem}"}
            row |= {"grid": grid}
            if is_known(options.out, row):
                continue
            model = model or load_cell(cell, options.weights, len(images.classes))
            row |= score(model, images, PartMasks(options.data), grid)
            print(row, flush=True)
            append(options.out, row)


@torch.inference_mode()
def score(model: nn.Module, images: TaggedImages, part_masks: PartMasks, grid: int) -> dict[str, Any]:
    """Return by kind of piece the number of pieces, the share that is named right and the tag's mean probability."""
    config = data_config(model.backbone)
    mean, std = (torch.tensor(config[key]).view(3, 1, 1) for key in ("mean", "std"))
    right, probabilities = defaultdict(list), defaultdict(list)
    for sample in images:
        parts = part_masks.read(sample.image_id)
        if parts is None or len(sample.labels) != 1:
            continue
        tag = sample.labels[0]
        pixels = torch.from_numpy(np.array(sample.read_image())).permute(2, 0, 1) / 255
        shown = np.asarray(sample.read_mask()) == tag + 1
        batches = defaultdict(list)  # pieces of one size are one batch
        for rows, columns in pieces(parts.shape, grid):
            crop = ((pixels - mean) / std)[:, rows, columns]
            batches[crop.shape].append((kind_of(parts[rows, columns], shown[rows, columns]), crop))
        for batch in batches.values():
            kinds, crops = zip(*batch, strict=True)
            for kind, logits in zip(kinds, unpatched_logits(model, torch.stack(crops)), strict=True):
                right[kind].append(int(logits.argmax()) == tag)
                probabilities[kind].append(float(logits[tag].sigmoid()))
    found: dict[str, Any] = {}
    for kind in KINDS:
        found |= {f"{kind}_pieces": len(right[kind]), f"{kind}_right": percent(np.mean(right[kind]))}
        found |= {f"{kind}_probability": percent(np.mean(probabilities[kind]))}
    return found


def pieces(size: tuple[int, int], grid: int) -> list[tuple[slice, slice]]:
    """Return the rows and columns of the pieces of an image."""
    edges = [[side * place // grid for place in range(grid + 1)] for side in size]
    rows, columns = ([slice(*pair) for pair in pairwise(own)] for own in edges)
    return [(row, column) for row in rows for column in columns]


def kind_of(parts: np.ndarray, shown: np.ndarray) -> str:
    """Return what a piece shows: part of a head, of a body without head, of the object alone, or nothing of it."""
    if (parts == HEAD).any():
        return "head"
    if (parts == BODY).any():
        return "body"
    return "object" if shown.any() else "background"


def unpatched_logits(model: nn.Module, x: Tensor) -> Tensor:
    """Return the logits (B,K) of the un-patched branch, which maps are read from; without patches of all branches."""
    maps = model.unpatched_class_maps(x)
    return model.pool(maps[-1] if model.cuts else torch.stack(maps).sum(0))


if __name__ == "__main__":
    main()
