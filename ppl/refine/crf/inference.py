"""`crf`: a fully connected CRF that moves probability maps to the edges of the image."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, TypeVar, cast

from ppl.refine.crf.backends import solve
from ppl.refine.crf.config import Compat, CrfConfig, Deviations, Normalization
from ppl.refine.crf.prepare import make_problem
from ppl.refine.crf.presets import find_preset

__all__ = ["crf", "settings_of"]

FunctionT = TypeVar("FunctionT", bound=Callable[..., Any])

_DEFAULTS = CrfConfig()


def settings_of(preset: str | CrfConfig | None, given: Mapping[str, Any]) -> CrfConfig:
    """Return the preset's settings, or the defaults, with the given settings in their place."""
    known = _DEFAULTS if preset is None else find_preset(preset)
    return CrfConfig.checked({**dict(known), **given})


def _filled_from_preset(function: FunctionT) -> FunctionT:
    """Let the preset's settings stand for the settings that the caller does not give."""

    @functools.wraps(function)
    def call(*arrays: Any, preset: str | CrfConfig | None = None, **given: Any) -> Any:
        settings = {} if preset is None else dict(find_preset(preset))
        settings = {name: value for name, value in settings.items() if name not in ("energies_from", "source")}
        return function(*arrays, preset=preset, **{**settings, **given})

    return cast("FunctionT", call)


@_filled_from_preset
def crf(
    image: Any,
    probs: Any = None,
    *,
    labels: Any = None,
    num_labels: int | None = None,
    gt_prob: float = _DEFAULTS.gt_prob,
    unary: Any = None,
    preset: str | CrfConfig | None = None,
    iterations: int = _DEFAULTS.iterations,
    gaussian_sxy: Deviations = _DEFAULTS.gaussian_sxy,
    gaussian_compat: Compat = _DEFAULTS.gaussian_compat,
    gaussian_normalization: Normalization = _DEFAULTS.gaussian_normalization,
    bilateral_sxy: Deviations = _DEFAULTS.bilateral_sxy,
    bilateral_srgb: Deviations = _DEFAULTS.bilateral_srgb,
    bilateral_compat: Compat = _DEFAULTS.bilateral_compat,
    bilateral_normalization: Normalization = _DEFAULTS.bilateral_normalization,
    features: Any = None,
    backend: str = "auto",
) -> Any:
    """Refine maps with a fully connected CRF (Krähenbühl and Koltun, NeurIPS 2011).

    Every pixel is tied to every other pixel by two kernels: a Gaussian of the distance (smoothness) and a Gaussian of
    the distance and the colours (appearance), both filtered on a permutohedral lattice. All engines give the result of
    pydensecrf. Gradients do not flow through.

    The maps are given in one of three ways: `probs`, `labels` or `unary`. A label whose probability nowhere exceeds
    1e-5 comes back as zeros and costs nothing, if both compatibilities are numbers. The native engine takes about
    80 + 20 L bytes per pixel for a photograph (L labels present) and up to five times that for noise. Numba compiles it
    in seconds at the first call on a machine and keeps the machine code for later processes.

    Args:
        image: (H, W, 3) uint8 RGB, numpy or torch; may be None if `features` are given.
        probs: (L, H, W) floating point, numpy or torch; every pixel sums to 1. The energies are minus their logarithm,
            as of pydensecrf's `unary_from_softmax`.
        labels: (H, W) integers in 0..num_labels-1, each right with probability `gt_prob`; all other labels share the
            rest equally, as in pydensecrf's `unary_from_labels(..., zero_unsure=False)`.
        num_labels: L, with `labels`; by default the highest label plus one.
        gt_prob: probability that a given label is right.
        unary: (L, H, W) floating point energies, such as minus log-probabilities.
        preset: a key of `PRESETS` or a `CrfConfig`, whose settings replace the defaults below. Presets whose
            `energies_from` is "labels" reduce `probs` to the most likely label of each pixel, as their authors do.
        iterations: number of mean-field iterations; 0 returns the normalised input.
        gaussian_sxy: standard deviation of the smoothness kernel in pixels; a pair gives one for x and one for y.
        gaussian_compat: compatibility of the smoothness kernel: a weight, an (L,) vector or an (L, L) matrix; see
            `CrfConfig`.
        gaussian_normalization: "symmetric", "before", "after" or "none"; see `CrfConfig`.
        bilateral_sxy: spatial standard deviation of the appearance kernel in pixels, or a pair.
        bilateral_srgb: its standard deviation in colour, on the scale 0..255, or one for each channel.
        bilateral_compat: compatibility of the appearance kernel.
        bilateral_normalization: normalisation of the appearance kernel.
        features: (H, W, C) numbers that take the place of the image's colours in the appearance kernel, on the scale
            that `bilateral_srgb` has: a depth map, a multi-spectral image. The axes of the kernel are then y, x and the
            channels, in the order of pydensecrf's `create_pairwise_bilateral`.
        backend: "auto", "native", "torch" or "pydensecrf"; `crf_backend` tells which engine "auto" means.

    Returns:
        (L, H, W) float32 probabilities: numpy for numpy, and torch on the same device for torch.

    Raises:
        PPLTypeError: if an array has a wrong type.
        PPLValueError: if none or several of `probs`, `labels` and `unary` are given, for a wrong shape, NaN,
            probabilities that do not sum to 1, a label out of range, or a setting out of range.

    Example:
        >>> import numpy as np
        >>> image = np.zeros((4, 6, 3), np.uint8)
        >>> image[:, 3:] = 255
        >>> foreground = np.full((4, 6), 0.1, np.float32)
        >>> foreground[:, 3:] = 0.8
        >>> foreground[2, 4] = 0.4  # one pixel of the bright half is missed ...
        >>> refined = crf(image, np.stack([1 - foreground, foreground]))
        >>> refined.argmax(axis=0)[2].tolist()  # ... and its neighbours of the same colour mend it
        [0, 0, 0, 1, 1, 1]
        >>> labels = (foreground > 0.5).astype(np.uint8)
        >>> crf(image, labels=labels, num_labels=2, preset="irn").shape
        (2, 4, 6)
    """
    settings = {
        "iterations": iterations, "gaussian_sxy": gaussian_sxy, "gaussian_compat": gaussian_compat,
        "gaussian_normalization": gaussian_normalization, "bilateral_sxy": bilateral_sxy,
        "bilateral_srgb": bilateral_srgb, "bilateral_compat": bilateral_compat,
        "bilateral_normalization": bilateral_normalization, "gt_prob": gt_prob,
    }  # fmt: skip
    problem = make_problem(
        image, probs, labels=labels, num_labels=num_labels, unary=unary, features=features,
        config=settings_of(preset, settings), backend=backend,
    )  # fmt: skip
    return solve([problem])[0]
