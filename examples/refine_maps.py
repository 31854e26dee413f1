"""Refine maps of any origin: NumPy arrays in, NumPy arrays out.

The maps of another method are simulated here: the true masks, blurred and displaced.
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
from scipy import ndimage

from ppl.data import Sample, make_creatures, open_dataset
from ppl.metrics import ConfusionMatrix
from ppl.refine import apply_refiners, cams_to_probs, crf, parse_refiners, pixel_adaptive, random_walk


def simulated_maps(sample: Sample) -> tuple[np.ndarray, np.ndarray]:
    """Return an image (H,W,3) uint8 and maps (k,H,W) in [0,1], one per tag."""
    mask = sample.read_mask()
    maps = np.stack([(mask == label + 1).astype(np.float32) for label in sample.labels])
    return np.asarray(sample.read_image()), ndimage.gaussian_filter(np.roll(maps, (2, 3), (1, 2)), (0, 3, 3))


def main(images: int = 8, size: int = 96, out: Path = Path("runs/examples/refine")) -> None:
    samples = open_dataset(make_creatures(out / "creatures", train=images, val=1, size=size), "train")

    # One image, by functions. Channel 0 of the probabilities is the background.
    image, maps = simulated_maps(samples[0])
    probs = cams_to_probs(maps, background=0.3)
    sharp = crf(image, probs, iterations=5)
    smooth = pixel_adaptive(image, probs, iterations=5, dilations=(1, 2, 4))
    colours = image[::4, ::4].transpose(2, 0, 1).astype(np.float32) / 255
    walked = random_walk(None, maps[:, ::4, ::4], features=colours, beta=60, num_steps=32)  # at stride 4
    print(f"crf {sharp.shape}, pixel_adaptive {smooth.shape}, random_walk {walked.shape}")

    # All images, by lists of refiners as in a recipe.
    for recipe in (None, "pixel_adaptive: {iterations: 5, dilations: [1, 2, 4]}", "random_walk", "crf: seam-seg"):
        refiners, start = parse_refiners(recipe), time.process_time()
        confusion = ConfusionMatrix(len(samples.classes) + 1)
        for sample in samples:
            image, maps = simulated_maps(sample)
            probs = apply_refiners(refiners, image, cams_to_probs(maps, background=0.3))
            labels = np.array([0, *(label + 1 for label in sample.labels)])
            confusion.update(sample.read_mask(), labels[probs.argmax(axis=0)])
        seconds = (time.process_time() - start) / len(samples)
        print(
            f"{recipe or 'the maps as they are':55s} mIoU {confusion.compute()['miou']:.1%}, {seconds:.2f} s an image"
        )


if __name__ == "__main__":
    main()
