"""Logits of an image: at several scales, mirrored, and in windows where the image is too large for one pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor

__all__ = ["averaged_logits", "predicted_windows", "window_starts"]

Logits = Callable[[Tensor], Tensor]
"""From normalised images (B,3,H,W) to logits (B,L,H,W)."""


def averaged_logits(network: Logits, images: Tensor, scales: Sequence[float], flip: bool) -> Tensor:
    """Average the logits of images over scales and mirror images.

    Args:
        network: a segmentation network.
        images: normalised (B,3,H,W).
        scales: factors of the images' size; images and logits are resized bilinearly with `align_corners=False`.
        flip: also take each scale mirrored.

    Returns:
        (B,L,H,W) float32.

    Example:
        >>> import torch
        >>> averaged_logits(lambda x: x[:, :2], torch.ones(1, 3, 4, 6), scales=[1.0, 0.5], flip=True).unique()
        tensor([1.])
    """
    size = images.shape[-2:]
    total: Tensor | None = None
    for scale in scales:
        scaled = [max(1, round(side * scale)) for side in size]
        x = images if scaled == list(size) else F.interpolate(images, scaled, mode="bilinear", align_corners=False)
        logits = network(x).float()
        if flip:
            logits = logits + network(x.flip(-1)).float().flip(-1)
        if scaled != list(size):
            logits = F.interpolate(logits, size, mode="bilinear", align_corners=False)
        total = logits if total is None else total + logits
    assert total is not None
    return total / (len(scales) * (2 if flip else 1))


def window_starts(length: int, window: int, step: int) -> list[int]:
    """Place windows along one axis so that they cover it; the last one ends at the edge.

    Args:
        length: of the axis.
        window: length of a window.
        step: distance of neighbouring windows, at most the length of a window.

    Returns:
        Where the windows start, ascending.

    Example:
        >>> window_starts(10, window=4, step=3), window_starts(3, window=4, step=3)
        ([0, 3, 6], [0])
    """
    if length <= window:
        return [0]
    return [*range(0, length - window, step), length - window]


def predicted_windows(
    logits_of: Logits, image: Tensor, window: int, step: int
) -> Iterator[tuple[tuple[slice, slice], Tensor]]:
    """Predict an image in windows, so that memory does not grow with the image.

    Where windows overlap, a pixel belongs to the window whose edges are farther away: a network sees less of what is
    around the pixels at an edge.

    Args:
        logits_of: gives the logits of windows (1,3,h,w).
        image: (3,H,W).
        window: side of the square windows.
        step: distance of neighbouring windows.

    Yields:
        Rows and columns of a part of the image, and its logits (L,r,c). The parts cover the image without overlap.

    Example:
        >>> import torch
        >>> image = torch.arange(60.0).reshape(1, 6, 10).repeat(3, 1, 1)
        >>> found = torch.empty(2, 6, 10)
        >>> for (rows, columns), logits in predicted_windows(lambda x: x[:, :2], image, window=4, step=3):
        ...     found[:, rows, columns] = logits
        >>> torch.equal(found, image[:2])
        True
    """
    height, width = image.shape[-2:]
    for top, rows in _parts(height, window, step):
        for left, columns in _parts(width, window, step):
            logits = logits_of(image[None, :, top : top + window, left : left + window])[0]
            inner = (slice(rows.start - top, rows.stop - top), slice(columns.start - left, columns.stop - left))
            yield (rows, columns), logits[:, inner[0], inner[1]]


def _parts(length: int, window: int, step: int) -> list[tuple[int, slice]]:
    """Return where the windows along an axis start, and the part of the axis that each of them decides."""
    starts = window_starts(length, window, step)
    borders = [0, *((start + window + following) // 2 for start, following in pairwise(starts)), length]
    return [(start, slice(*border)) for start, border in zip(starts, pairwise(borders), strict=True)]
