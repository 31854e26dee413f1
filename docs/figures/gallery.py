"""Draw the pictures of the README and of the gallery, from a run of the demo and photographs that scikit-image brings.

    make demo
    python docs/figures/gallery.py runs/demo       writes readme.jpg and gallery_*.jpg beside this file

The images are the first of the validation split with two classes, whatever became of them. Nothing is downloaded.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import skimage.data
from PIL import Image
from scipy import ndimage

import ppl
from ppl.cam import CamResult, generate
from ppl.data import Sample, TaggedImages, open_dataset
from ppl.io import read_mask
from ppl.pipeline import RunFolder
from ppl.refine import apply_refiners, cams_to_probs, parse_refiners
from ppl.report import GridRow, image_grid, overlay, overlay_mask

HERE = Path(__file__).parent
SPLIT = "val"
METHODS = ["cam", "gradcam", "gradcam++", "layercam", "sharpened_cam", "propagated_cam"]
REFINERS = [
    "crf: irn",
    "crf: deeplab",
    "pixel_adaptive",
    "superpixels: felzenszwalb",
    "guided_filter",
    "random_walk",
]
# photograph, and the ellipse that stands for a map: centre (row, column) and radii, as shares of height and width
PHOTOGRAPHS = {
    "astronaut": ((0.55, 0.42), (0.33, 0.26)),
    "chelsea": ((0.52, 0.48), (0.38, 0.27)),
    "coffee": ((0.5, 0.5), (0.28, 0.2)),
    "rocket": ((0.52, 0.5), (0.34, 0.05)),
}


def save(name: str, rows: list[GridRow], columns: list[str], classes: tuple[str, ...] = (), width: int = 1200) -> None:
    """Write a grid as a small JPEG."""
    picture = image_grid(rows, columns, classes=classes)
    height = round(picture.height * width / picture.width)
    picture.resize((width, height), Image.Resampling.LANCZOS).save(HERE / name, quality=80, optimize=True)
    print(f"wrote {name}")


def tags(images: TaggedImages, sample: Sample) -> str:
    """Name the classes of an image."""
    return ", ".join(images.classes[label] for label in sample.labels)


def steps(run: RunFolder, images: TaggedImages, chosen: list[Sample]) -> None:
    """Draw the picture of the README, and one image through the whole pipeline."""
    plain = RunFolder(run.path / "compare" / "baseline")
    short, long = [], []
    for sample in chosen:
        image = np.asarray(sample.read_image())
        cams = [CamResult.load(folder.cams(SPLIT) / f"{sample.image_id}.npz") for folder in (plain, run)]
        maps = [overlay(image, cam.maps.numpy(), cam.classes.numpy()) for cam in cams]
        folders = (run.masks(SPLIT), run.refined(SPLIT), run.segmented(SPLIT))
        masks = [read_mask(folder / f"{sample.image_id}.png") for folder in folders]
        drawn = [overlay_mask(image, mask) for mask in [*masks, sample.read_mask()]]
        short.append(GridRow(tags(images, sample), [image, maps[1], drawn[1], drawn[2]]))
        long.append(GridRow(tags(images, sample), [image, *maps, *drawn]))
    columns = ["image with tags", "class activation map", "refined mask", "network, without tags"]
    save("readme.jpg", short, columns, images.classes, width=860)
    columns = ["image with tags", "plain map", "map with patches", "mask of the map", "refined", "network", "true mask"]
    save("gallery_steps.jpg", long[:3], columns, images.classes)


def methods(run: RunFolder, images: TaggedImages, chosen: list[Sample]) -> None:
    """Draw the maps of all methods."""
    model = ppl.load_model(run.weights("last"))
    rows = []
    for sample in chosen[:3]:
        image = np.asarray(sample.read_image())
        cells: list[Any] = [image]
        for method in METHODS:
            (cam,) = generate(model, [image], [list(sample.labels)], scales=(1.0, 1.5), method=method)
            cells.append(overlay(image, cam.maps.numpy(), cam.classes.numpy()))
        rows.append(GridRow(tags(images, sample), cells))
    save("gallery_methods.jpg", rows, ["image", *METHODS], images.classes)


def refined(image: Any, probs: Any, labels: Any) -> list[Any]:
    """Draw the mask of some probabilities, and those of all refiners."""
    found = [probs, *(apply_refiners(parse_refiners([refiner]), image, probs) for refiner in REFINERS)]
    return [overlay_mask(image, labels[each.argmax(axis=0)]) for each in found]


def refiners(run: RunFolder, images: TaggedImages, chosen: list[Sample]) -> None:
    """Draw the masks of all refiners, from the maps of the run."""
    rows = []
    for sample in chosen[:3]:
        image = np.asarray(sample.read_image())
        cam = CamResult.load(run.cams(SPLIT) / f"{sample.image_id}.npz")
        labels = np.concatenate([[0], cam.classes.numpy() + 1])
        rows.append(GridRow(tags(images, sample), [image, *refined(image, cam.to_probs("auto").numpy(), labels)]))
    save("gallery_refiners.jpg", rows, ["image", "not refined", *REFINERS], images.classes)


def photographs() -> None:
    """Draw the masks of all refiners on photographs, from a blurred ellipse."""
    rows = []
    for name, (centre, radii) in PHOTOGRAPHS.items():
        picture = Image.fromarray(getattr(skimage.data, name)())
        picture.thumbnail((320, 320))
        image = np.asarray(picture)
        y, x = np.indices(image.shape[:2]) / np.array(image.shape[:2]).reshape(2, 1, 1)
        ellipse = ((y - centre[0]) / radii[0]) ** 2 + ((x - centre[1]) / radii[1]) ** 2 < 1
        maps = ndimage.gaussian_filter(ellipse.astype(np.float32), 8)[None]
        rows.append(GridRow(name, [image, *refined(image, cams_to_probs(maps, background=0.5), np.array([0, 1]))]))
    save("gallery_photographs.jpg", rows, ["photograph", "ellipse", *REFINERS])


def main() -> None:
    """Draw all pictures."""
    run = RunFolder(Path(sys.argv[1]))
    images = open_dataset(run.path / "creatures", SPLIT)
    chosen = [sample for sample in images if len(sample.labels) == 2][:4]
    steps(run, images, chosen)
    methods(run, images, chosen)
    refiners(run, images, chosen)
    photographs()


if __name__ == "__main__":
    main()
