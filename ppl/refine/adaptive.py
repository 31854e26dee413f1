"""Pixel-adaptive mask refinement (PAMR): every pixel becomes the average of neighbours of similar colour."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, TypeVar

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from pydantic import Field

from ppl.parameters import check_parameters
from ppl.refine.arrays import as_image, as_tensor, check_batch, check_finite, like

__all__ = ["pixel_adaptive"]

Array = TypeVar("Array", npt.NDArray[np.generic], torch.Tensor)

_SHARPNESS = 0.1  # colour differences are measured in tenths of the local standard deviation
_TINY = 1e-8  # avoids division by zero in flat regions


def pixel_adaptive(
    image: npt.NDArray[np.generic] | torch.Tensor,
    maps: Array,
    *,
    iterations: Annotated[int, Field(ge=0)] = 10,
    dilations: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1)] = (1, 2, 4, 8, 12, 24),
) -> Array:
    """Refine maps by local averages over neighbours of similar colour (PAMR).

    The neighbours of a pixel are the 8 pixels around the centre of a 3x3 window, at every dilation. The weight of
    neighbour j is the softmax over all neighbours of `-mean_c |I_i - I_j| / (0.1 * deviation)`, where `deviation` is
    the standard deviation of the channel over the windows. Every iteration replaces the maps by their weighted
    averages. Pixels beyond the border repeat the border.

    Source: Araslanov and Roth, "Single-Stage Semantic Segmentation from Image Labels", CVPR 2020, section 4.3.

    Args:
        image: `(H, W, 3)` or `(B, H, W, 3)`, uint8 or floating point in [0, 1].
        maps: `(k, H, W)` or `(B, k, H, W)`, any floating type. Gradients flow back to them.
        iterations: number of iterations.
        dilations: distances of the neighbours in pixels.

    Returns:
        An array of the kind, shape, type and device of `maps`. Maps that sum to 1 still sum to 1.

    Raises:
        PPLValueError: for shapes that do not match or values that are not finite.

    Example:
        >>> import numpy as np
        >>> image = np.zeros((1, 6, 3), np.uint8)
        >>> image[:, 3:] = 255
        >>> maps = np.array([[[0.9, 0.6, 0.3, 0.2, 0.1, 0.0]]], np.float32)
        >>> pixel_adaptive(image, maps, dilations=(1,)).round(1)  # the maps now change at the colour edge
        array([[[0.6, 0.6, 0.6, 0.1, 0.1, 0.1]]], dtype=float32)
    """
    checked = check_parameters(pixel_adaptive, iterations=iterations, dilations=dilations)
    iterations, dilations = checked["iterations"], checked["dilations"]
    batched = getattr(maps, "ndim", 3) == 4
    values = as_tensor(maps, "maps", "B k H W" if batched else "k H W")
    height, width = values.shape[-2:]
    colours = as_image(image, (height, width)).to(_working_type(values)).to(values.device)
    check_batch(colours, values)
    check_finite("maps", values)
    if not values.numel() or not iterations:
        return like(maps, values.clone())
    with torch.no_grad():
        check_finite("image", colours)
        colours = colours if batched else colours[None]
        weights = _neighbour_weights(colours.permute(0, 3, 1, 2), dilations)
    working = (values if batched else values[None]).to(_working_type(values))
    for _ in range(iterations):
        average = torch.zeros_like(working)
        # One neighbour at a time, since 48 shifted copies of the maps would take much memory.
        for i, neighbour in enumerate(_neighbours(working, dilations)):
            average.addcmul_(weights[:, i, None], neighbour)
        working = average
    return like(maps, (working if batched else working[0]).to(values.dtype))


def _working_type(values: torch.Tensor) -> torch.dtype:
    return torch.float64 if values.dtype == torch.float64 else torch.float32


def _offsets(dilations: tuple[int, ...]) -> list[tuple[int, int]]:
    return [(d * y, d * x) for d in dilations for y in (-1, 0, 1) for x in (-1, 0, 1) if y or x]


def _neighbours(maps: torch.Tensor, dilations: tuple[int, ...]) -> Iterator[torch.Tensor]:
    """Yield the maps (B, C, H, W) shifted by each offset, as views of one padded copy."""
    h, w = maps.shape[-2:]
    reach = max(dilations)
    padded = F.pad(maps, (reach, reach, reach, reach), mode="replicate")
    for dy, dx in _offsets(dilations):
        yield padded[..., reach + dy : reach + dy + h, reach + dx : reach + dx + w]


def _neighbour_weights(image: torch.Tensor, dilations: tuple[int, ...]) -> torch.Tensor:
    """Return weights (B, 8 * len(dilations), H, W) that sum to 1 over the neighbours; `image` is (B, 3, H, W)."""
    # The window of every dilation includes the centre. Two passes, since one pass would lose flat regions to rounding.
    count = 9 * len(dilations)
    mean = image * (len(dilations) / count)
    for neighbour in _neighbours(image, dilations):
        mean.add_(neighbour, alpha=1 / count)
    variance = (image - mean).square_() * len(dilations)
    for neighbour in _neighbours(image, dilations):
        variance.add_((neighbour - mean).square_())
    scale = 1.0 / (_TINY + _SHARPNESS * (variance / (count - 1)).sqrt())
    distances = [((neighbour - image).abs_() * scale).mean(dim=1) for neighbour in _neighbours(image, dilations)]
    return torch.stack(distances, dim=1).neg_().softmax(dim=1)
