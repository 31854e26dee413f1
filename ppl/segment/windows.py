"""Logits of an image: at several scales, mirrored, and in windows where the image is too large for one pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch.nn.functional as F
from torch import Tensor

__all__ = ["averaged_logits", "window_starts", "windowed_mask"]

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


def windowed_mask(logits_of: Logits, image: Tensor, window: int, step: int) -> Iterator[Tensor]:
    """Predict an image in windows and yield finished rows, so that memory grows with the width of the image alone.

    Where windows overlap, their logits are averaged.

    Args:
        logits_of: gives the logits of windows (1,3,h,w).
        image: normalised (3,H,W).
        window: side of the square windows.
        step: distance of neighbouring windows.

    Yields:
        Logits (L,r,W) float32 of the next r rows, from the top of the image to its bottom.

    Example:
        >>> import torch
        >>> image = torch.arange(60.0).reshape(1, 6, 10).repeat(3, 1, 1)
        >>> rows = list(windowed_mask(lambda x: x[:, :2], image, window=4, step=3))
        >>> torch.equal(torch.cat(rows, dim=1), image[:2])
        True
    """
    height, width = image.shape[-2:]
    tops, lefts = window_starts(height, window, step), window_starts(width, window, step)
    strip: Tensor | None = None  # sums of logits of the rows from `above` on
    counts: Tensor | None = None
    above = 0
    for number, top in enumerate(tops):
        rows = min(window, height)
        for left in lefts:
            logits = logits_of(image[None, :, top : top + window, left : left + window])[0].float()
            if strip is None or counts is None:
                strip, counts = logits.new_zeros(len(logits), rows, width), logits.new_zeros(rows, width)
            part = (slice(top - above, top - above + rows), slice(left, left + window))
            strip[:, part[0], part[1]] += logits
            counts[part] += 1
        assert strip is not None and counts is not None
        finished = (tops[number + 1] if number + 1 < len(tops) else top + rows) - above
        yield strip[:, :finished] / counts[:finished]
        above += finished
        kept = strip[:, finished:]
        strip = F.pad(kept, (0, 0, 0, rows - kept.shape[1]))
        counts = F.pad(counts[finished:], (0, 0, 0, rows - kept.shape[1]))
