"""Batch normalisation of maps that were pooled to one cell."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["accept_single_values"]


class _SingleValueBatchNorm2d(nn.BatchNorm2d):
    """`BatchNorm2d` that uses its running statistics where a training batch has one value per channel.

    One value has no variance, so `BatchNorm2d` raises an error. This happens in the image pooling of ASPP and in PSP
    pooling if a batch has one image.
    """

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 (torch's name of the argument)
        if self.training and input.numel() == input.shape[1] and self.running_mean is not None:
            return F.batch_norm(
                input, self.running_mean, self.running_var, self.weight, self.bias, training=False, eps=self.eps
            )
        return super().forward(input)


def accept_single_values(module: nn.Module) -> None:
    """Let every `BatchNorm2d` of a module take batches of one image whose map has one cell.

    Parameters, statistics and names stay the same.

    Args:
        module: the module, which is changed in place.

    Example:
        >>> import torch
        >>> pooling = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.BatchNorm2d(4))
        >>> accept_single_values(pooling)
        >>> pooling.train()(torch.ones(1, 4, 8, 8)).shape
        torch.Size([1, 4, 1, 1])
    """
    for child in module.modules():
        if type(child) is nn.BatchNorm2d:
            child.__class__ = _SingleValueBatchNorm2d
