"""Guided filter: maps as a local linear function of the image's colours, so that they follow its edges."""

from __future__ import annotations

from typing import Annotated, TypeVar

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from einops import rearrange
from pydantic import Field

from ppl.parameters import check_parameters
from ppl.refine.arrays import as_image, as_tensor, check_batch, check_finite, float64_device, like

__all__ = ["guided_filter"]

Array = TypeVar("Array", npt.NDArray[np.generic], torch.Tensor)

# The rounding errors of the variances stay far below the least value, and the cube of the greatest does not overflow.
_LEAST_EPS, _MOST_EPS = 1e-8, 1e8


def guided_filter(
    image: npt.NDArray[np.generic] | torch.Tensor,
    maps: Array,
    *,
    radius: Annotated[int, Field(ge=0)] = 8,
    eps: Annotated[float, Field(ge=_LEAST_EPS, le=_MOST_EPS)] = 1e-4,
) -> Array:
    """Filter maps with the colour image as their guide.

    In every window, the maps are fitted by a linear function of the three colours (ridge regression). A pixel gets the
    mean of the predictions of all windows that contain the pixel. The cost does not depend on the radius. Windows are
    cropped at the border.

    Source: He, Sun and Tang, "Guided Image Filtering", TPAMI 2013, equations 19 to 21. The defaults are ours.

    Args:
        image: `(H, W, 3)` or `(B, H, W, 3)`, uint8 or floating point in [0, 1].
        maps: `(k, H, W)` or `(B, k, H, W)`, any floating type. Gradients flow back to them.
        radius: windows have `2 * radius + 1` pixels on a side.
        eps: regularisation, in squared colour units of [0, 1]; colour changes below its root are smoothed over.

    Returns:
        An array of the kind, shape, type and device of `maps`. Maps that sum to 1 still sum to 1; values may leave
        [0, 1] by a few percent.

    Raises:
        PPLValueError: for shapes that do not match or values that are not finite.

    Example:
        >>> import numpy as np
        >>> image = np.zeros((1, 6, 3), np.uint8)
        >>> image[:, 3:] = 255
        >>> maps = np.array([[[0.9, 0.8, 0.4, 0.2, 0.1, 0.0]]], np.float32)
        >>> guided_filter(image, maps, radius=6).round(1)  # 0.7 on the black side, 0.1 on the white
        array([[[0.7, 0.7, 0.7, 0.1, 0.1, 0.1]]], dtype=float32)
    """
    checked = check_parameters(guided_filter, radius=radius, eps=eps)
    radius, eps = checked["radius"], checked["eps"]
    batched = getattr(maps, "ndim", 3) == 4
    values = as_tensor(maps, "maps", "B k H W" if batched else "k H W")
    # float64, since variances are small differences of large sums; on the CPU where the device has no float64.
    device = float64_device(values.device)
    colours = as_image(image, (values.shape[-2], values.shape[-1])).to(device)
    check_batch(colours, values)
    check_finite("maps", values)
    check_finite("image", colours)
    if not values.numel():
        return like(maps, values.clone())
    guide = (colours if batched else colours[None]).permute(0, 3, 1, 2).double()
    target = (values if batched else values[None]).to(device).double()
    mean_guide, mean_target = _box_mean(guide, radius), _box_mean(target, radius)
    products = torch.einsum("bihw,bjhw->bijhw", guide, guide).flatten(1, 2)
    crossed = torch.einsum("bihw,bkhw->bikhw", guide, target).flatten(1, 2)
    variance = rearrange(_box_mean(products, radius), "b (i j) h w -> b i j h w", i=3) - torch.einsum(
        "bihw,bjhw->bijhw", mean_guide, mean_guide
    )
    covariance = rearrange(_box_mean(crossed, radius), "b (i k) h w -> b i k h w", i=3) - torch.einsum(
        "bihw,bkhw->bikhw", mean_guide, mean_target
    )
    inverse = _inverse_of_symmetric(variance, eps)
    slope = torch.einsum("bijhw,bjkhw->bikhw", inverse, covariance)
    offset = mean_target - torch.einsum("bikhw,bihw->bkhw", slope, mean_guide)
    mean_slope = rearrange(_box_mean(slope.flatten(1, 2), radius), "b (i k) h w -> b i k h w", i=3)
    result = torch.einsum("bikhw,bihw->bkhw", mean_slope, guide) + _box_mean(offset, radius)
    return like(maps, (result if batched else result[0]).to(values.dtype).to(values.device))


def _box_mean(maps: torch.Tensor, radius: int) -> torch.Tensor:
    """Return the mean over windows of `2 * radius + 1` pixels, cropped at the border; (B, C, H, W)."""
    for dim in (-1, -2):
        length = maps.shape[dim]
        sums = F.pad(maps.cumsum(dim), (1, 0) if dim == -1 else (0, 0, 1, 0))
        centres = torch.arange(length, device=maps.device)
        after, before = (centres + radius + 1).clamp(max=length), (centres - radius).clamp(min=0)
        count = (after - before).to(maps).view(-1, *(1,) * (-1 - dim))
        maps = (sums.index_select(dim, after) - sums.index_select(dim, before)) / count
    return maps


def _inverse_of_symmetric(matrix: torch.Tensor, eps: float) -> torch.Tensor:
    """Invert `matrix + eps * identity`, (B, 3, 3, H, W), by cofactors, which is faster than a solver."""
    a, b, c = matrix[:, 0, 0] + eps, matrix[:, 0, 1], matrix[:, 0, 2]
    d, e, f = matrix[:, 1, 1] + eps, matrix[:, 1, 2], matrix[:, 2, 2] + eps
    first, second, third = d * f - e * e, c * e - b * f, b * e - c * d
    determinant = a * first + b * second + c * third
    fifth, sixth, ninth = a * f - c * c, b * c - a * e, a * d - b * b
    cofactors = torch.stack([first, second, third, second, fifth, sixth, third, sixth, ninth], dim=1)
    return rearrange(cofactors / determinant[:, None], "b (i j) h w -> b i j h w", i=3)
