"""Score masks of propagated maps with and without the pixel classifier, which is fitted to the scored images' own maps.

    python benchmarks/study/pixels.py DATASET SPLIT WEIGHTS EPOCH.pt ... --steps 60 125 250

Tags are known and no mask is used but for the scores. One row for each number of steps; 0 steps are the refiners
without a pixel classifier. The classifier is used even if its agreement with the masks of unseen images, the last
column, is below `PixelConfig.min_agreement`. Rows that are in the file already are passed over.
"""

from __future__ import annotations

import argparse
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from score_maps import append, foreground, is_known, percent
from trained_cells import backbone_of, cell_maps, cells_parser, load_cell, part

from ppl.cam import CamConfig, CamResult
from ppl.data import TaggedImages, open_dataset
from ppl.metrics import ConfusionMatrix
from ppl.refine import RefineJob, apply_refiners, parse_refiners
from ppl.refine.jobs import Cams, read_probs
from ppl.refine.pixel_file import predict_pixels
from ppl.refine.pixels import PixelClassifier, PixelConfig, fit_pixel_classifier

HERE = Path(__file__).parent


def main() -> None:
    parser = cells_parser(__doc__)
    parser.add_argument("--steps", type=int, nargs="+", default=[0, PixelConfig().steps])
    parser.add_argument("--weight", type=float, default=0.5, help="share of the pixel classifier")
    parser.add_argument("--method", default="propagated_cam")
    parser.add_argument("--scales", type=float, nargs="+", default=CamConfig().scales)
    parser.add_argument("--refine", default="crf: irn")
    parser.add_argument("--images", default="::", help="START:STOP:STEP of the split")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "pixels.csv")
    options = parser.parse_args()
    torch.set_num_threads(1)
    images = part(open_dataset(options.data, options.split), options.images)
    for cell in options.cells:
        rows = [row for row in rows_of(cell, options) if not is_known(options.out, row)]
        if not rows:
            continue
        jobs = make_maps(cell, images, options)
        for row in rows:
            found = row | score(cell, images, jobs, row["steps"], options)
            print(found, flush=True)
            append(options.out, found)


def rows_of(cell: Path, options: argparse.Namespace) -> list[dict[str, str]]:
    """Return the settings of each row, as they stand in the file."""
    common = {
        "data": options.data.name,
        "split": options.split,
        "images": options.images,
        "cell": f"{cell.parent.name}/{cell.stem}",
        "method": options.method,
        "scales": " ".join(f"{scale:g}" for scale in options.scales),
        "refine": options.refine,
        "weight": f"{options.weight:g}",
    }
    return [common | {"steps": str(steps)} for steps in options.steps]


def make_maps(cell: Path, images: TaggedImages, options: argparse.Namespace) -> list[RefineJob]:
    """Compute the maps of all images once."""
    results = cell_maps(cell, images, options, method=options.method)
    return [
        RefineJob(sample.image_id, sample.picture, partial(_cams, result))
        for sample, result in zip(images, results, strict=True)
    ]


def _cams(result: CamResult) -> Cams:
    return result.maps.float().numpy(), result.classes.numpy()


def score(
    cell: Path, images: TaggedImages, jobs: list[RefineJob], steps: str, options: argparse.Namespace
) -> dict[str, Any]:
    """Fit the pixel classifier in the given number of steps, and score the refined masks in percent."""
    started, agreement = time.perf_counter(), None
    refiners = parse_refiners(options.refine)
    if int(steps):
        network = PixelClassifier(
            backbone_of(options.weights),
            len(images.classes),
            backbone_options={"output_stride": 16},
            weights=load_cell(cell, options.weights, len(images.classes)).backbone.state_dict(),
        )
        config = PixelConfig(steps=int(steps))
        agreement = fit_pixel_classifier(jobs, network, config, num_workers=1, progress=False).agreement
        function = partial(predict_pixels, network)
        refiners = parse_refiners([{"pixel_classifier": {"network": function, "weight": options.weight}}, *refiners])
    matrix = ConfusionMatrix(len(images.classes) + 1)
    for sample, job in zip(images, jobs, strict=True):
        image, probs, labels = read_probs(job, "auto")
        refined = np.asarray(apply_refiners(refiners, image, probs, labels))
        matrix.update(sample.read_mask(), labels[refined.argmax(axis=0)])
    return {
        "refined": percent(matrix.compute()["miou"]),
        "recall": foreground(matrix, 1),
        "precision": foreground(matrix, 0),
        "seconds": round(time.perf_counter() - started),
        "agreement": "" if agreement is None else round(agreement, 3),
    }


if __name__ == "__main__":
    main()
