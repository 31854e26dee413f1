"""Draw the picture of the README from a run of the demo.

    make demo
    python docs/figures/readme.py runs/demo        writes readme.jpg beside this file

The images are the first four of the validation split with two classes, whatever became of them.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from PIL import Image

from ppl.cam import CamResult
from ppl.data import open_dataset
from ppl.io import read_mask
from ppl.pipeline import RunFolder
from ppl.report import GridRow, image_grid, overlay, overlay_mask

HERE = Path(__file__).parent
SPLIT, COUNT, WIDTH = "val", 4, 860


def main() -> None:
    """Draw the picture."""
    run = RunFolder(Path(sys.argv[1]))
    images = open_dataset(run.path / "creatures", SPLIT)
    chosen = [sample for sample in images if len(sample.labels) == 2][:COUNT]
    rows = []
    for sample in chosen:
        image = np.asarray(sample.read_image())
        cam = CamResult.load(run.cams(SPLIT) / f"{sample.image_id}.npz")
        masks = [read_mask(folder / f"{sample.image_id}.png") for folder in (run.refined(SPLIT), run.segmented(SPLIT))]
        tags = ", ".join(images.classes[label] for label in sample.labels)
        cells = [image, overlay(image, cam.maps.numpy(), cam.classes.numpy())]
        rows.append(GridRow(tags, [*cells, *(overlay_mask(image, mask) for mask in masks)]))
    columns = ["image with tags", "class activation map", "refined mask", "network, without tags"]
    path = HERE / "readme.jpg"
    image_grid(rows, columns, path, classes=images.classes)
    picture = Image.open(path).convert("RGB")
    height = round(picture.height * WIDTH / picture.width)
    picture.resize((WIDTH, height), Image.Resampling.LANCZOS).save(path, quality=88)


if __name__ == "__main__":
    main()
