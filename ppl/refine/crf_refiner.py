"""The dense CRF as a refiner: a published setting, of which a recipe may replace single values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from pydantic import AfterValidator, Field

from ppl.errors import nearest
from ppl.parameters import check_parameters
from ppl.refine.arrays import Positive, Weight
from ppl.refine.crf import PRESETS, crf_backend
from ppl.refine.crf.problem import from_preset, solve

__all__ = ["crf_refiner", "resolve_crf_options"]

Array = TypeVar("Array", npt.NDArray[np.generic], torch.Tensor)


def _known_preset(name: str) -> str:
    if name not in PRESETS:
        raise ValueError(f"no such preset{nearest(name, PRESETS)}")
    return name


def _known_backend(name: str) -> str:
    crf_backend(name)
    return name


def crf_refiner(
    image: npt.NDArray[np.generic] | torch.Tensor,
    probs: Array,
    *,
    preset: Annotated[str, AfterValidator(_known_preset)] = "psa",
    iterations: Annotated[int, Field(ge=0)] | None = None,
    gaussian_sxy: Positive | None = None,
    gaussian_compat: Weight | None = None,
    bilateral_sxy: Positive | None = None,
    bilateral_srgb: Positive | None = None,
    bilateral_compat: Weight | None = None,
    gt_prob: Annotated[float, Field(gt=0, lt=1)] | None = None,
    scale_factor: Positive = 1.0,
    backend: Annotated[str, AfterValidator(_known_backend)] = "auto",
) -> Array:
    """Refine probabilities by the dense CRF with a published setting.

    Settings that were published for hard labels (`irn`, `puzzle`) start from the most likely label of each pixel, which
    is right with probability `gt_prob`; the others start from the probabilities.

    Args:
        image: `(H, W, 3)` uint8.
        probs: `(L, H, W)`.
        preset: a key of `ppl.refine.PRESETS`.
        iterations: number of mean-field iterations. None, here and below: the preset's value.
        gaussian_sxy: width of the smoothness kernel in pixels.
        gaussian_compat: weight of the smoothness kernel.
        bilateral_sxy: width of the appearance kernel in pixels.
        bilateral_srgb: width of the appearance kernel in colour, 0 to 255.
        bilateral_compat: weight of the appearance kernel.
        gt_prob: probability that a hard label is right.
        scale_factor: divides both widths in pixels.
        backend: engine, as for `ppl.refine.crf`.

    Returns:
        `(L, H, W)` float32.

    Example:
        >>> probs = np.full((2, 5, 6), 0.5, np.float32)
        >>> crf_refiner(np.zeros((5, 6, 3), np.uint8), probs, preset="irn", iterations=1).shape
        (2, 5, 6)
    """
    given: dict[str, Any] = {
        "iterations": iterations,
        "gaussian_sxy": gaussian_sxy,
        "gaussian_compat": gaussian_compat,
        "bilateral_sxy": bilateral_sxy,
        "bilateral_srgb": bilateral_srgb,
        "bilateral_compat": bilateral_compat,
        "gt_prob": gt_prob,
    }
    known = PRESETS[check_parameters(crf_refiner, preset=preset)["preset"]]
    setting = replace(known, **{name: value for name, value in given.items() if value is not None})
    refined: Array = solve([from_preset(image, probs, setting, scale_factor=scale_factor, backend=backend)])[0]
    return refined


def resolve_crf_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options with the preset's numbers and the name of the engine in place of None and "auto".

    Example:
        >>> resolve_crf_options({"preset": "irn", "iterations": None, "backend": "auto"})
        {'preset': 'irn', 'iterations': 10, 'backend': 'native'}
    """
    setting = PRESETS[options["preset"]]
    resolved = {name: getattr(setting, name) if value is None else value for name, value in options.items()}
    return {**resolved, "backend": crf_backend(resolved["backend"])}
