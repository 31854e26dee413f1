"""`crf` and `crf_from_labels`: fully connected CRFs that sharpen maps along the edges of the image."""

from __future__ import annotations

from typing import Any, cast

from ppl.refine.crf.problem import from_labels, from_preset, from_probs, solve
from ppl.refine.crf.validation import ArrayT

__all__ = ["crf", "crf_from_labels", "crf_preset"]


def crf(
    image: Any,
    probs: ArrayT,
    *,
    iterations: int = 10,
    gaussian_sxy: float = 3,
    gaussian_compat: float = 3,
    bilateral_sxy: float = 80,
    bilateral_srgb: float = 13,
    bilateral_compat: float = 10,
    backend: str = "auto",
) -> ArrayT:
    """Refine probability maps with a fully connected CRF (Krähenbühl and Koltun, NeurIPS 2011).

    Every pixel is tied to every other one by two kernels with a Potts penalty: a Gaussian of the distance
    (smoothness) and a Gaussian of distance and colour (appearance), both normalised symmetrically and filtered on
    a permutohedral lattice. The answer is that of pydensecrf with `unary_from_softmax`, whichever engine runs. The
    defaults are PSA's; `PRESETS` has the others of the field. Gradients do not flow through it.

    Only labels that are present enter: a label whose probability nowhere exceeds 1e-5 comes back as zeros. The native
    engine takes about 80 + 20 L bytes per pixel for a photograph (L labels present) and up to five times that for
    noise. It is compiled when first called, in less than a second, and kept for later processes in `PPL_CACHE_DIR`, by
    default `~/.cache/ppl`.

    Args:
        image: (H, W, 3) uint8 RGB, numpy or torch.
        probs: (L, H, W) floating point, numpy or torch; every pixel sums to 1.
        iterations: mean-field steps; 0 returns the normalised input.
        gaussian_sxy: standard deviation of the smoothness kernel, in pixels.
        gaussian_compat: its weight.
        bilateral_sxy: spatial standard deviation of the appearance kernel, in pixels.
        bilateral_srgb: its standard deviation in colour, on the scale 0..255.
        bilateral_compat: its weight.
        backend: `"auto"`, `"native"`, `"torch"` or `"pydensecrf"`; `crf_backend` tells what `"auto"` means.

    Returns:
        (L, H, W) float32 probabilities: numpy for numpy, and torch on the same device for torch.

    Raises:
        PPLTypeError: for an array or number of the wrong type.
        PPLValueError: for a wrong shape, NaN, probabilities that do not sum to 1, or a setting out of range.

    Example:
        >>> import numpy as np
        >>> image = np.zeros((4, 6, 3), np.uint8)
        >>> image[:, 3:] = 255
        >>> foreground = np.full((4, 6), 0.1, np.float32)
        >>> foreground[:, 3:] = 0.8
        >>> foreground[2, 4] = 0.4  # one pixel of the bright half is missed ...
        >>> refined = crf(image, np.stack([1 - foreground, foreground]))
        >>> refined.argmax(axis=0)[2].tolist()  # ... and its like-coloured neighbours mend it
        [0, 0, 0, 1, 1, 1]
    """
    problem = from_probs(
        image, probs, iterations=iterations, gaussian_sxy=gaussian_sxy, gaussian_compat=gaussian_compat,
        bilateral_sxy=bilateral_sxy, bilateral_srgb=bilateral_srgb, bilateral_compat=bilateral_compat, backend=backend,
    )  # fmt: skip
    return cast("ArrayT", solve([problem])[0])


def crf_from_labels(
    image: Any,
    labels: ArrayT,
    num_labels: int,
    *,
    gt_prob: float = 0.7,
    iterations: int = 10,
    gaussian_sxy: float = 3,
    gaussian_compat: float = 3,
    bilateral_sxy: float = 80,
    bilateral_srgb: float = 13,
    bilateral_compat: float = 10,
    backend: str = "auto",
) -> ArrayT:
    """Refine a hard label map that is right with probability `gt_prob` (IRN's `crf_inference_label`).

    The energies are those of pydensecrf's `unary_from_labels(labels, num_labels, gt_prob, zero_unsure=False)`: the
    given label has probability `gt_prob` and every other one an equal share of the rest. Labels below `num_labels`
    that occur nowhere have the same energy everywhere, so all of them are computed as one, without an error.

    Args:
        image: (H, W, 3) uint8 RGB, numpy or torch.
        labels: (H, W) integers in 0..num_labels-1, numpy or torch.
        num_labels: L, the number of labels.
        gt_prob: between 0 and 1, both excluded.
        iterations: as for `crf`, like the five below.
        gaussian_sxy: as for `crf`.
        gaussian_compat: as for `crf`.
        bilateral_sxy: as for `crf`; IRN's is 50.
        bilateral_srgb: as for `crf`; IRN's is 5.
        bilateral_compat: as for `crf`.
        backend: as for `crf`.

    Returns:
        (L, H, W) float32 probabilities: numpy for numpy, and torch on the same device for torch.

    Raises:
        PPLTypeError: for an array or number of the wrong type.
        PPLValueError: for a wrong shape, a label out of range, or a setting out of range.

    Example:
        >>> import numpy as np
        >>> image = np.zeros((4, 6, 3), np.uint8)
        >>> crf_from_labels(image, np.zeros((4, 6), np.int64), 1).shape
        (1, 4, 6)
    """
    problem = from_labels(
        image, labels, num_labels, gt_prob=gt_prob, iterations=iterations, gaussian_sxy=gaussian_sxy,
        gaussian_compat=gaussian_compat, bilateral_sxy=bilateral_sxy, bilateral_srgb=bilateral_srgb,
        bilateral_compat=bilateral_compat, backend=backend,
    )  # fmt: skip
    return cast("ArrayT", solve([problem])[0])


def crf_preset(image: Any, probs: ArrayT, name: str, *, scale_factor: float = 1.0, backend: str = "auto") -> ArrayT:
    """Refine probability maps with a published setting, which decides how the maps become energies.

    A preset made for label maps (`irn`, `puzzle`) sees the most likely label of each pixel, among the labels that are
    present, as its authors' code does; the others see the probabilities.

    Args:
        image: (H, W, 3) uint8 RGB, numpy or torch.
        probs: (L, H, W) floating point, numpy or torch; every pixel sums to 1.
        name: a key of `PRESETS`.
        scale_factor: divides the spatial deviations.
        backend: as for `crf`.

    Returns:
        (L, H, W) float32 probabilities.

    Raises:
        PPLValueError: for an unknown name and whatever `crf` refuses.

    Example:
        >>> import numpy as np
        >>> probs = np.full((2, 5, 5), 0.5, np.float32)
        >>> crf_preset(np.zeros((5, 5, 3), np.uint8), probs, "psa").shape
        (2, 5, 5)
    """
    problem = from_preset(image, probs, name, scale_factor=scale_factor, backend=backend)
    return cast("ArrayT", solve([problem])[0])
