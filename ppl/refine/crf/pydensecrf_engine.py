"""The reference engine: pydensecrf, behind arrays that it cannot choke on."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ppl.errors import PPLValueError
from ppl.extras import require
from ppl.refine.crf.validation import CRFSettings

__all__ = ["mean_field"]


def mean_field(
    image: NDArray[np.uint8],
    unary: NDArray[np.float32],
    settings: CRFSettings,
    copies: int = 1,
) -> NDArray[np.float32]:
    """Mean-field inference by pydensecrf. The arguments are those that `ppl.refine.crf.inference` has checked.

    Args:
        image: (H, W, 3) contiguous.
        unary: (L, H, W) energies, contiguous.
        settings: checked numbers.
        copies: how many labels the last energy stands for; pydensecrf gets each of them.

    Returns:
        (L, H, W) probabilities; the last is that of a single copy.
    """
    densecrf = require("pydensecrf.densecrf", "crf")
    if copies > 1:
        unary = np.concatenate([unary, np.repeat(unary[-1:], copies - 1, axis=0)])
    labels, height, width = unary.shape
    if labels * height * width >= 2**31:
        raise PPLValueError(f"pydensecrf counts in 32 bits and cannot hold {unary.shape}; use backend='native'")
    # C++ writes through neither, but its Cython signatures refuse read-only buffers.
    image = np.require(image, requirements=["C", "W"])
    energies = np.require(unary.reshape(labels, -1), np.float32, requirements=["C", "W"])
    crf = densecrf.DenseCRF2D(width, height, labels)
    crf.setUnaryEnergy(energies)
    crf.addPairwiseGaussian(sxy=float(settings.gaussian_sxy), compat=float(settings.gaussian_compat))
    crf.addPairwiseBilateral(
        sxy=float(settings.bilateral_sxy),
        srgb=float(settings.bilateral_srgb),
        rgbim=image,
        compat=float(settings.bilateral_compat),
    )
    result = np.array(crf.inference(int(settings.iterations)), dtype=np.float32)
    kept = labels - copies + 1
    return np.ascontiguousarray(result[:kept]).reshape(kept, height, width)
