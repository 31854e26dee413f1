"""The pixel classifier as a refiner."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from pydantic import Field

from ppl.errors import PPLTypeError, PPLValueError
from ppl.refine.arrays import as_tensor, like

__all__ = ["background_prior", "label_probs", "pixel_classifier"]

_TINY = 1e-6

Array = TypeVar("Array", npt.NDArray[np.generic], torch.Tensor)


def background_prior(num_labels: int) -> float:
    """Return the logit that makes the background as likely as all classes of an image together.

    Without this prior, a softmax over many classes finds the foreground nearly everywhere.

    Args:
        num_labels: number of labels of the image, with the background.

    Example:
        >>> logits = torch.zeros(5)  # the background and four classes
        >>> logits[0] += background_prior(5)
        >>> round(logits.softmax(dim=0)[0].item(), 2)
        0.5
    """
    return math.log(max(num_labels - 1, 1))


def label_probs(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return the probabilities of an image's labels; the background has the prior of all classes together.

    Args:
        logits: `(1 + K, ...)`, the background in channel 0.
        labels: `(L,)` labels of the image: 0 first, and class c as c + 1.

    Returns:
        `(L, ...)` float32, which sum to 1.
    """
    chosen = logits[labels.to(logits.device)].float()
    chosen[0] += background_prior(len(chosen))
    return chosen.softmax(dim=0)


def pixel_classifier(
    image: npt.NDArray[np.generic] | torch.Tensor,
    probs: Array,
    labels: npt.NDArray[np.integer[Any]],
    *,
    network: Path | Callable[[Any], torch.Tensor] | None = None,
    weight: Annotated[float, Field(ge=0, le=1)] = 0.5,
) -> Array:
    """Average the probability of the foreground with that of a pixel classifier, which was fitted to many images.

    The map of an image tells where the classifier of images looked, the pixel classifier what objects of the same
    classes look like in all images. Their faults differ, so on photographs of whole objects the average is better than
    each of the two; on garments it changed little, and on faults of a few pixels it was worse. A classifier that does
    not agree with the masks of images that its fit has not seen (`PixelConfig.min_agreement`) leaves the probabilities
    as they are. The prior of the background equals that of all classes of the image together. The classes share the
    foreground as before, since classes that often occur together are hard to tell apart by pixels. The method is ours;
    see the page of results on PASCAL VOC.

    Args:
        image: `(H, W, 3)` uint8.
        probs: `(L, H, W)`, the background in channel 0.
        labels: `(L,)` label of each channel in a mask: 0, and class c as c + 1. All other classes are ruled out.
        network: file of a pixel classifier, or the function that `load_pixel_classifier` returns. `ppl run` fits a
            classifier and sets this option.
        weight: share of the pixel classifier in the average.

    Returns:
        `(L, H, W)`.

    Raises:
        PPLTypeError: without a network.
        PPLValueError: if the network has fewer classes than `labels` name.

    Example:
        >>> logits = lambda image: torch.tensor([[[0.0]], [[-9.0]], [[9.0]]])  # class 1 everywhere
        >>> probs = np.full((2, 1, 1), 0.5, np.float32)
        >>> pixel_classifier(np.zeros((1, 1, 3), np.uint8), probs, np.array([0, 2]), network=logits).round(2).ravel()
        array([0.25, 0.75], dtype=float32)
    """
    if network is None:
        raise PPLTypeError("the refiner pixel_classifier needs a network, which fit_pixel_classifier fits")
    values = as_tensor(probs, "probs", "L H W")
    if len(values) < 2:
        return like(probs, values.clone())
    if isinstance(network, Path):
        from ppl.refine.pixel_file import load_pixel_classifier  # imports timm, which no other refiner of maps needs

        network = load_pixel_classifier(network)
    if not _is_useful(network):
        return like(probs, values.clone())
    logits = network(image)
    if int(labels.max()) >= len(logits):
        raise PPLValueError(
            f"the pixel classifier knows {len(logits) - 1} classes, and the image has class {int(labels.max()) - 1} "
            "(counted from 0): fit it on the CAMs of this data set"
        )
    chosen = label_probs(logits, torch.as_tensor(labels))
    size = (values.shape[1], values.shape[2])
    resized = F.interpolate(chosen[None], size, mode="bilinear", align_corners=False)[0].to(values)
    foreground = weight * (1 - resized[:1]) + (1 - weight) * (1 - values[:1])
    total = values[1:].sum(dim=0, keepdim=True)
    shares = torch.where(total > _TINY, values[1:] / total.clamp(min=_TINY), _shares(resized))
    return like(probs, torch.cat([1 - foreground, foreground * shares]))


def _is_useful(network: Callable[[Any], torch.Tensor]) -> bool:
    """Return what the fit found out about the network of a file; a function of the user's own is always useful."""
    return bool(getattr(getattr(network, "network", None), "useful", True))


def _shares(probs: torch.Tensor) -> torch.Tensor:
    """Return the shares of the classes in the foreground."""
    return probs[1:] / probs[1:].sum(dim=0, keepdim=True).clamp(min=_TINY)
