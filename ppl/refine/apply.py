"""Apply a list of refiners to the probabilities of an image."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch

from ppl.errors import PPLTypeError, PPLValueError
from ppl.refine.arrays import as_tensor, like
from ppl.refine.refiners import REFINERS, takes_labels
from ppl.refine.specs import RefinerSpec

__all__ = ["apply_refiners", "iterate_refiners"]

Array = TypeVar("Array", npt.NDArray[np.generic], torch.Tensor)


def iterate_refiners(
    refiners: Sequence[RefinerSpec],
    image: npt.NDArray[np.generic] | torch.Tensor,
    probs: Array,
    labels: npt.NDArray[np.integer[Any]] | None = None,
) -> Iterator[tuple[RefinerSpec, Array]]:
    """Apply refiners one after the other and yield the result of each.

    Args:
        refiners: specs of `parse_refiners`.
        image: `(H, W, 3)` uint8.
        probs: `(L, H, W)` probabilities, the background in channel 0.
        labels: `(L,)` label of each channel in a mask: 0, and class c as c + 1; `pixel_classifier` needs them.

    Yields:
        The spec, and the probabilities after it: at least 0, every pixel sums to 1.

    Raises:
        PPLValueError: for maps that a refiner cannot take.
        PPLTypeError: for a refiner that needs labels, without labels.

    Example:
        >>> from ppl.refine import parse_refiners
        >>> image, probs = np.zeros((4, 5, 3), np.uint8), np.full((2, 4, 5), 0.5, np.float32)
        >>> chain = parse_refiners("guided_filter: 2, superpixels")
        >>> [(spec.label, maps.shape) for spec, maps in iterate_refiners(chain, image, probs)]
        [('guided_filter: 2', (2, 4, 5)), ('superpixels', (2, 4, 5))]
    """
    for spec in refiners:
        refiner, inputs = REFINERS[spec.name], [image, probs]
        if takes_labels(refiner):
            if labels is None:
                raise PPLTypeError(f"the refiner {spec.name!r} needs the class of each channel: pass labels")
            inputs.append(labels)
        probs = normalized(spec, refiner(*inputs, **spec.options), probs)
        yield spec, probs


def apply_refiners(
    refiners: Sequence[RefinerSpec],
    image: npt.NDArray[np.generic] | torch.Tensor,
    probs: Array,
    labels: npt.NDArray[np.integer[Any]] | None = None,
) -> Array:
    """Apply refiners one after the other.

    Args:
        refiners: specs of `parse_refiners`.
        image: `(H, W, 3)` uint8.
        probs: `(L, H, W)` probabilities, the background in channel 0; numpy or torch.
        labels: `(L,)` label of each channel in a mask: 0, and class c as c + 1; `pixel_classifier` needs them.

    Returns:
        The probabilities after the last refiner, of the same kind as `probs`; `probs` itself without refiners.

    Raises:
        PPLValueError: for maps that a refiner cannot take.
        PPLTypeError: for a refiner that needs labels, without labels.

    Example:
        >>> from ppl.refine import parse_refiners
        >>> image, probs = np.zeros((4, 5, 3), np.uint8), np.full((2, 4, 5), 0.5, np.float32)
        >>> apply_refiners(parse_refiners(["guided_filter", "superpixels"]), image, probs).shape
        (2, 4, 5)
    """
    for _, refined in iterate_refiners(refiners, image, probs, labels):
        probs = refined
    return probs


def normalized(spec: RefinerSpec, scores: Array, probs: Array) -> Array:
    """Turn the scores of a refiner into probabilities: at least 0, every pixel sums to 1.

    A pixel whose scores are all 0 gets equal shares.

    Args:
        spec: the refiner, for errors.
        scores: the result of the refiner, `(L, H, W)`.
        probs: the input of the refiner, `(L, H, W)`.

    Raises:
        PPLValueError: if the shapes differ.
    """
    values = as_tensor(scores, f"the result of the refiner {spec.name!r}", "L H W").clamp(min=0)
    if values.shape != probs.shape:
        raise PPLValueError(f"the refiner {spec.name!r} made {tuple(values.shape)} of maps {tuple(probs.shape)}")
    total = values.sum(dim=0, keepdim=True)
    return like(probs, torch.where(total > 0, values / total.clamp(min=1e-12), 1.0 / max(len(values), 1)))
