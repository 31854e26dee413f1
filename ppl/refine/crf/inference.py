"""`crf` and `crf_from_labels`: fully connected CRFs that sharpen maps along the edges of the image."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ppl.errors import PPLTypeError, PPLValueError
from ppl.refine.crf.backends import crf_backend, engine
from ppl.refine.crf.presets import preset
from ppl.refine.crf.validation import (
    CLIP,
    ArrayT,
    CRFSettings,
    as_numpy,
    check_image,
    check_labels,
    check_probs,
    is_torch,
    to_caller,
)

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
    settings = CRFSettings(iterations, gaussian_sxy, gaussian_compat, bilateral_sxy, bilateral_srgb, bilateral_compat)
    pixels = check_image(image)
    maps, present = check_probs(probs, pixels.shape[:2])
    settings.check_range(*pixels.shape[:2])
    device = str(probs.device) if is_torch(probs) else "cpu"
    name = crf_backend(backend, device)
    result = np.zeros(maps.shape, np.float32)
    if len(present) == 1:
        result[present] = 1
        return to_caller(result, probs)
    unary = np.empty((len(present), *maps.shape[1:]), np.float32)
    for energies, label in zip(unary, present, strict=True):  # plane by plane: it stays in the cache
        np.clip(maps[label], CLIP, 1.0, out=energies)
        np.log(energies, out=energies)
        np.negative(energies, out=energies)
    refined = engine(name)(pixels, unary, settings, device=device)
    if len(present) < len(result):
        result[present] = refined
        refined = result
    return to_caller(refined, probs)


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
    settings = CRFSettings(iterations, gaussian_sxy, gaussian_compat, bilateral_sxy, bilateral_srgb, bilateral_compat)
    pixels = check_image(image)
    indices = check_labels(labels, num_labels, pixels.shape[:2])
    if isinstance(gt_prob, bool) or not isinstance(gt_prob, int | float | np.floating):
        raise PPLTypeError(f"gt_prob must be a number, got {gt_prob!r}")
    if not 0 < gt_prob < 1:
        raise PPLValueError(f"gt_prob must lie between 0 and 1, both excluded, got {gt_prob}")
    settings.check_range(*pixels.shape[:2])
    device = str(labels.device) if is_torch(labels) else "cpu"
    name = crf_backend(backend, device)
    if num_labels == 1:
        return to_caller(np.ones((1, *indices.shape), np.float32), labels)
    present = np.flatnonzero(np.bincount(indices.ravel(), minlength=num_labels))
    absent = num_labels - len(present)
    row = np.zeros(num_labels, np.int32)
    row[present] = np.arange(len(present))
    unary = np.full(
        (len(present) + (absent > 0), *indices.shape), -math.log((1 - gt_prob) / (num_labels - 1)), np.float32
    )
    np.put_along_axis(unary, row[indices][None], np.float32(-math.log(gt_prob)), axis=0)
    refined = engine(name)(pixels, unary, settings, max(absent, 1), device)
    if absent:
        result = np.empty((num_labels, *indices.shape), np.float32)
        result[:] = refined[-1]
        result[present] = refined[:-1]
        refined = result
    return to_caller(refined, labels)


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
    chosen = preset(name)
    arguments: dict[str, Any] = dict(chosen.arguments(scale_factor), backend=backend)
    if chosen.unary == "probs":
        return crf(image, probs, **arguments)
    maps, present = check_probs(probs, check_image(image).shape[:2])
    labels = to_caller(maps[present].argmax(axis=0), probs)
    refined = crf_from_labels(image, labels, len(present), gt_prob=chosen.gt_prob, **arguments)
    result = np.zeros(maps.shape, np.float32)
    result[present] = as_numpy(refined, "probs")
    return to_caller(result, probs)
