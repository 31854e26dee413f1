"""The reference engine: pydensecrf."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ppl.errors import PPLValueError
from ppl.extras import require
from ppl.refine.crf.config import per_axis
from ppl.refine.crf.problem import Problem

__all__ = ["mean_field"]


def mean_field(problem: Problem) -> NDArray[np.float32]:
    """Run mean-field inference by pydensecrf.

    Args:
        problem: a checked problem; pydensecrf gets a label of its own for each copy of the last energy.

    Returns:
        (L, H, W) probabilities; the last plane belongs to a single copy.

    Raises:
        PPLValueError: if there are too many values for pydensecrf's 32-bit counters.
    """
    densecrf = require("pydensecrf.densecrf", "crf")
    config, unary = problem.config, problem.unary
    if problem.copies > 1:
        unary = np.concatenate([unary, np.repeat(unary[-1:], problem.copies - 1, axis=0)])
    labels, height, width = unary.shape
    if labels * height * width >= 2**31:
        raise PPLValueError(f"pydensecrf counts in 32 bits and cannot hold {unary.shape}; use backend='native'")
    normalizations = {
        "symmetric": densecrf.NORMALIZE_SYMMETRIC,
        "before": densecrf.NORMALIZE_BEFORE,
        "after": densecrf.NORMALIZE_AFTER,
        "none": densecrf.NO_NORMALIZATION,
    }
    # Its Cython signatures refuse read-only buffers, although the C++ code writes to none of them.
    model = densecrf.DenseCRF2D(width, height, labels)
    model.setUnaryEnergy(np.require(unary.reshape(labels, -1), np.float32, requirements=["C", "W"]))
    model.addPairwiseGaussian(
        sxy=per_axis("gaussian_sxy", config.gaussian_sxy, 2),
        compat=_compat(config.gaussian_compat),
        normalization=normalizations[config.gaussian_normalization],
    )
    appearance: dict[str, Any] = {
        "compat": _compat(config.bilateral_compat),
        "normalization": normalizations[config.bilateral_normalization],
    }
    sx, sy = per_axis("bilateral_sxy", config.bilateral_sxy, 2)
    if problem.features is None:
        model.addPairwiseBilateral(
            sxy=(sx, sy),
            srgb=per_axis("bilateral_srgb", config.bilateral_srgb, 3),
            rgbim=np.require(problem.image, requirements=["C", "W"]),
            **appearance,
        )
    else:
        utils = require("pydensecrf.utils", "crf")
        channels = per_axis("bilateral_srgb", config.bilateral_srgb, problem.features.shape[-1])
        rows = utils.create_pairwise_bilateral((sy, sx), channels, problem.features.copy(), chdim=2)
        model.addPairwiseEnergy(np.ascontiguousarray(rows, np.float32), **appearance)
    result = np.array(model.inference(config.iterations), dtype=np.float32)
    kept = labels - problem.copies + 1
    return np.ascontiguousarray(result[:kept]).reshape(kept, height, width)


def _compat(value: float | tuple[Any, ...]) -> float | NDArray[np.float32]:
    return value if isinstance(value, float) else np.array(value, np.float32)
