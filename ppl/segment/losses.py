"""The loss of a segmentation network on masks with ignored pixels."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ppl.errors import PPLValueError

__all__ = ["segmentation_loss"]


def segmentation_loss(
    logits: Tensor,
    target: Tensor,
    *,
    weight: Tensor | None = None,
    balanced: bool = False,
    label_smoothing: float = 0.0,
    ignore_index: int = 255,
) -> Tensor:
    """Average the cross-entropy over the pixels of a batch that are not ignored.

    Args:
        logits: (B,L,H,W).
        target: (B,H,W) integers; `ignore_index` does not count.
        weight: (B,H,W), 0 or more: how much each pixel counts; None for 1.
        balanced: average background and foreground pixels apart and take half of each sum, so that a large background
            does not outweigh the objects.
        label_smoothing: the part of the target that is spread over all labels, in [0, 1).
        ignore_index: the label of ignored pixels.

    Returns:
        A scalar; 0, with zero gradients, if every pixel is ignored.

    Raises:
        PPLValueError: if the shapes do not fit together.

    Source:
        The balanced form is `get_seg_loss` of AFA (Ru et al., CVPR 2022).

    Example:
        >>> logits = torch.zeros(1, 2, 1, 2)
        >>> float(segmentation_loss(logits, torch.tensor([[[1, 255]]])))
        0.6931...
        >>> float(segmentation_loss(logits, torch.full((1, 1, 2), 255)))
        0.0
    """
    if logits.shape[0] != target.shape[0] or logits.shape[2:] != target.shape[1:]:
        raise PPLValueError(f"logits {tuple(logits.shape)} and target {tuple(target.shape)} are of different sizes")
    losses = F.cross_entropy(
        logits.float(), target.long(), reduction="none", ignore_index=ignore_index, label_smoothing=label_smoothing
    )
    counts = (target != ignore_index).float()
    if weight is not None:
        counts = counts * weight
    if not balanced:
        return _mean(losses, counts)
    foreground = (target > 0).float()
    return (_mean(losses, counts * (1 - foreground)) + _mean(losses, counts * foreground)) / 2


def _mean(losses: Tensor, counts: Tensor) -> Tensor:
    total = counts.sum()
    return (losses * counts).sum() / torch.where(total > 0, total, torch.ones_like(total))
