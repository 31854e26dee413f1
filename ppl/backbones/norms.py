"""The BatchNorm layers of a model."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

__all__ = ["batch_norms"]


def batch_norms(model: nn.Module) -> Iterator[_BatchNorm]:
    """Yield the BatchNorm layers of a model: 1d, 2d, 3d, synchronised, and subclasses such as timm's.

    Example:
        >>> [type(norm).__name__ for norm in batch_norms(nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)))]
        ['BatchNorm2d']
    """
    return (module for module in model.modules() if isinstance(module, _BatchNorm))
