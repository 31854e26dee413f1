"""A refiner of one's own, for recipes (`plugins: [new_refiner]`, `refine: ["median: 7"]`), `ppl refine` and Python."""

import numpy as np
from scipy import ndimage

from ppl.refine import apply_refiners, parse_refiners, register_refiner


def median(image: np.ndarray, probs: np.ndarray, *, size: int = 5) -> np.ndarray:
    """Replace every score by the median of its neighbours; `image` (H,W,3) uint8 has no part in this refiner."""
    return ndimage.median_filter(probs, (1, size, size))


register_refiner("median", median)


def main() -> None:
    probs = np.random.default_rng(0).dirichlet((1, 2), (64, 64)).transpose(2, 0, 1).astype(np.float32)
    refined = apply_refiners(parse_refiners("median: 7"), np.zeros((64, 64, 3), np.uint8), probs)
    print(f"pixels of class 1: {(probs[1] > 0.5).mean():.0%} before, {(refined[1] > 0.5).mean():.0%} after")


if __name__ == "__main__":
    main()
