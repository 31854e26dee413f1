"""How well a map shows what a classifier reads, with masks (pointing game, energy) or without (deletion, insertion)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ppl.errors import PPLValueError
from ppl.metrics.inputs import as_numbers

__all__ = ["Curve", "deletion", "energy_inside", "insertion", "pointing_game"]

# RISE's Gaussian: 11 pixels wide, with a standard deviation of 5 pixels.
_BLUR_SIZE, _BLUR_SIGMA = 11, 5.0


class Curve(NamedTuple):
    """Scores of a class while pixels are removed or shown.

    Attributes:
        scores: (steps + 1,) float64, the score after each step; the first one is before the first step.
        area: area under the curve over the share of pixels, the mean of neighbouring scores.
    """

    scores: Tensor
    area: float


def pointing_game(maps: Any, masks: Any) -> Tensor:
    """Tell for each map whether its largest value lies in its mask.

    Args:
        maps: (n,h,w) real numbers.
        masks: (n,h,w), nonzero inside of the object.

    Returns:
        (n,) bool on the CPU. The mean over a data set is the score. Of several largest values, the first one counts.

    Raises:
        PPLValueError: if the shapes differ or a map holds NaN.
        PPLTypeError: if maps or masks are not real numbers.

    Source:
        Top-down Neural Attention by Excitation Backprop (Zhang et al., IJCV 2018), without its margin of 15 pixels.

    Example:
        >>> pointing_game([[[0.1, 0.9]], [[0.8, 0.2]]], [[[0, 1]], [[0, 1]]])
        tensor([ True, False])
    """
    values, inside = _maps_and_masks(maps, masks)
    return inside.flatten(1).gather(1, values.flatten(1).argmax(dim=1, keepdim=True))[:, 0]


def energy_inside(maps: Any, masks: Any) -> Tensor:
    """Compute the share of each map's values that lies in its mask.

    Args:
        maps: (n,h,w), 0 or more.
        masks: (n,h,w), nonzero inside of the object; boxes are masks too.

    Returns:
        (n,) float64 in [0,1] on the CPU; NaN for a map of zeros.

    Raises:
        PPLValueError: if the shapes differ, or a map holds NaN or negative values.
        PPLTypeError: if maps or masks are not real numbers.

    Source:
        The energy-based pointing game of Score-CAM (Wang et al., CVPRW 2020), equation 10.

    Example:
        >>> energy_inside([[[1.0, 3.0]]], [[[0, 1]]])
        tensor([0.7500], dtype=torch.float64)
    """
    values, inside = _maps_and_masks(maps, masks)
    if (values < 0).any():
        raise PPLValueError(f"maps must not be negative, got {float(values.min()):.3g}: apply a ReLU first")
    return (values * inside).sum(dim=(1, 2)) / values.sum(dim=(1, 2))


def deletion(
    predict: Callable[[Tensor], Tensor], image: Tensor, saliency: Any, *, steps: int = 20, batch_size: int = 32
) -> Curve:
    """Measure how fast the score of a class falls while its most salient pixels are replaced by 0.

    A faithful map has a small area.

    Args:
        predict: makes scores (B,) of the class, such as probabilities, of images (B,C,H,W).
        image: (C,H,W), normalised, so that 0 is the mean colour.
        saliency: (H,W) map of the class.
        steps: number of steps, in each of which as many pixels are replaced.
        batch_size: images in one call of `predict`.

    Returns:
        The curve, from the whole image to no pixel of the image.

    Raises:
        PPLValueError: if the map's size is not the image's, or there is no step.

    Source:
        RISE (Petsiuk et al., BMVC 2018), section 4.2.

    Example:
        >>> image = torch.tensor([[[1.0, 0.0, 0.0, 0.0]]])
        >>> deletion(lambda x: x.sum(dim=(1, 2, 3)), image, [[0.9, 0.2, 0.1, 0.0]], steps=4)
        Curve(scores=tensor([1., 0., 0., 0., 0.], dtype=torch.float64), area=0.125)
    """
    return _curve(predict, image, torch.zeros_like(image), saliency, steps, batch_size)


def insertion(
    predict: Callable[[Tensor], Tensor], image: Tensor, saliency: Any, *, steps: int = 20, batch_size: int = 32
) -> Curve:
    """Measure how fast the score of a class rises while its most salient pixels are shown in a blurred image.

    A faithful map has a large area.

    Args:
        predict: makes scores (B,) of the class, such as probabilities, of images (B,C,H,W).
        image: (C,H,W), normalised.
        saliency: (H,W) map of the class.
        steps: number of steps, in each of which as many pixels are shown.
        batch_size: images in one call of `predict`.

    Returns:
        The curve, from the blurred image to the whole image.

    Raises:
        PPLValueError: if the map's size is not the image's, or there is no step.

    Source:
        RISE (Petsiuk et al., BMVC 2018), section 4.2.

    Example:
        >>> image = torch.zeros(1, 16, 16)
        >>> image[0, 8, 8] = 1
        >>> curve = insertion(lambda x: x.amax(dim=(1, 2, 3)), image, image[0], steps=2)
        >>> curve.scores[1:]
        tensor([1., 1.], dtype=torch.float64)
    """
    return _curve(predict, _blurred(image), image, saliency, steps, batch_size)


@torch.no_grad()
def _curve(
    predict: Callable[[Tensor], Tensor], start: Tensor, end: Tensor, saliency: Any, steps: int, batch_size: int
) -> Curve:
    """Scores while the pixels of `start` are replaced by those of `end`, the most salient ones first."""
    values = as_numbers(saliency, "saliency").to(start.device)
    if tuple(values.shape) != tuple(start.shape[1:]):
        raise PPLValueError(f"saliency {tuple(values.shape)} must have the size of the image {tuple(start.shape)}")
    if steps < 1:
        raise PPLValueError(f"steps must be 1 or more, got {steps}")
    order = values.flatten().argsort(descending=True, stable=True)
    ranks = torch.empty_like(order).scatter_(0, order, torch.arange(len(order), device=order.device))
    counts = [round(step * len(order) / steps) for step in range(steps + 1)]
    scores = []
    for first in range(0, steps + 1, batch_size):
        replaced = torch.stack([(ranks < count).view(values.shape) for count in counts[first : first + batch_size]])
        scores.append(predict(torch.where(replaced[:, None], end, start)).cpu().double())  # MPS has no float64
    found = torch.cat(scores)
    return Curve(found, float((found[1:] + found[:-1]).mean() / 2))


def _blurred(image: Tensor) -> Tensor:
    """The image under RISE's Gaussian."""
    offsets = torch.arange(_BLUR_SIZE, dtype=torch.float32, device=image.device) - _BLUR_SIZE // 2
    kernel = (-(offsets**2) / (2 * _BLUR_SIGMA**2)).exp()
    kernel = (kernel / kernel.sum()).to(image.dtype)
    channels = image[:, None]
    rows = F.conv2d(channels, kernel.view(1, 1, -1, 1), padding=(_BLUR_SIZE // 2, 0))
    return F.conv2d(rows, kernel.view(1, 1, 1, -1), padding=(0, _BLUR_SIZE // 2))[:, 0]


def _maps_and_masks(maps: Any, masks: Any) -> tuple[Tensor, Tensor]:
    values, inside = as_numbers(maps, "maps").cpu().double(), as_numbers(masks, "masks").cpu()
    if values.ndim != 3 or values.shape != inside.shape:
        raise PPLValueError(f"maps {tuple(values.shape)} and masks {tuple(inside.shape)} must both be (n,h,w)")
    if values.isnan().any():
        raise PPLValueError("maps hold NaN: check the model's weights and its input")
    return values, inside != 0
