"""The dense CRF as a refiner: a published setting, of which a recipe may replace single values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from pydantic import AfterValidator, Field

from ppl.parameters import known_parameters
from ppl.refine.arrays import Positive
from ppl.refine.crf import CrfConfig, crf, crf_backend
from ppl.refine.crf.config import CompatField, DeviationsField, Normalization
from ppl.refine.crf.inference import settings_of
from ppl.refine.crf.presets import find_preset

__all__ = ["crf_config", "crf_refiner", "resolve_crf_options"]

Array = TypeVar("Array", npt.NDArray[np.generic], torch.Tensor)


def _known_preset(name: str) -> str:
    find_preset(name)
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
    gaussian_sxy: DeviationsField | None = None,
    gaussian_compat: CompatField | None = None,
    gaussian_normalization: Normalization | None = None,
    bilateral_sxy: DeviationsField | None = None,
    bilateral_srgb: DeviationsField | None = None,
    bilateral_compat: CompatField | None = None,
    bilateral_normalization: Normalization | None = None,
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
        gaussian_sxy: width of the smoothness kernel in pixels, or one for each of x and y.
        gaussian_compat: weight of the smoothness kernel, or a vector or matrix over the labels.
        gaussian_normalization: "symmetric", "before", "after" or "none".
        bilateral_sxy: width of the appearance kernel in pixels, or one for each of x and y.
        bilateral_srgb: width of the appearance kernel in colour, 0 to 255, or one for each channel.
        bilateral_compat: weight of the appearance kernel, or a vector or matrix over the labels.
        bilateral_normalization: as for the smoothness kernel.
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
    options = {
        "preset": preset,
        "scale_factor": scale_factor,
        "iterations": iterations,
        "gaussian_sxy": gaussian_sxy,
        "gaussian_compat": gaussian_compat,
        "gaussian_normalization": gaussian_normalization,
        "bilateral_sxy": bilateral_sxy,
        "bilateral_srgb": bilateral_srgb,
        "bilateral_compat": bilateral_compat,
        "bilateral_normalization": bilateral_normalization,
        "gt_prob": gt_prob,
    }
    refined: Array = crf(image, probs, preset=crf_config(options), backend=backend)
    return refined


def crf_config(options: Mapping[str, Any]) -> CrfConfig:
    """Return the CRF's settings for the options of `crf_refiner`; options that are missing keep their defaults.

    Example:
        >>> crf_config({"preset": "irn", "iterations": 3}).iterations
        3
    """
    values = {**known_parameters(crf_refiner), **options}
    preset, scale_factor = values.pop("preset"), values.pop("scale_factor")
    del values["backend"]
    given = {name: value for name, value in values.items() if value is not None}
    return settings_of(preset, given).scaled(scale_factor)


def resolve_crf_options(options: Mapping[str, Any], device: str) -> dict[str, Any]:
    """Return the options with the preset's numbers and the name of the engine in place of None and "auto".

    Args:
        options: value by option.
        device: device of the CRF, on which the engine "auto" depends.

    Example:
        >>> resolve_crf_options({"preset": "irn", "iterations": None, "backend": "auto"}, "cuda")
        {'preset': 'irn', 'iterations': 10, 'backend': 'torch'}
    """
    setting = find_preset(options["preset"])
    resolved = {name: getattr(setting, name) if value is None else value for name, value in options.items()}
    return {**resolved, "backend": crf_backend(resolved["backend"], device)}
