"""Classify the maps of several branches together (C and the classifier of the paper's figures)."""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ppl.errors import PPLValueError
from ppl.layers.pooling import build_pooling

__all__ = ["GranularityFusion"]


class GranularityFusion(nn.Module):
    """Classify the maps of several branches by a bias-free 1x1 convolution of their concatenation.

    A 1x1 convolution of concatenated maps is the sum of one 1x1 convolution per branch, so each branch has its own
    classifier. The concatenated tensor is never made, and the class maps of every branch are available.

    Args:
        in_channels: channels of each branch's map, one integer per branch.
        num_classes: K, the number of classes.
        pooling: from class maps to logits: "average" (as in the paper), "max", "generalised_mean:POWER",
            "log_sum_exp:SHARPNESS", "ngwp:POWER", or a name given to :func:`register_pooling`.
        bias: add a number per class to the logits; class maps have no bias.

    Raises:
        PPLValueError: if a number is below 1, there is no branch, or the pooling is unknown.

    Source:
        Concatenation C and classifier, Progressive Patch Learning (Li et al., IEEE TMM 2022), figures 2 and 5.

    Example:
        >>> import torch
        >>> fusion = GranularityFusion((64, 64), num_classes=20)
        >>> maps = [torch.randn(2, 64, 7, 9), torch.randn(2, 64, 7, 9)]
        >>> fusion(maps).shape, fusion.class_maps(maps).shape, list(fusion.state_dict())
        (torch.Size([2, 20]), torch.Size([2, 20, 7, 9]), ['classifiers.0.weight', 'classifiers.1.weight'])
    """

    def __init__(
        self, in_channels: Sequence[int], num_classes: int, pooling: str = "average", *, bias: bool = False
    ) -> None:
        super().__init__()
        self.in_channels = tuple(in_channels)
        self.num_classes = operator.index(num_classes)  # a number of numpy cannot be written to a file
        self.pooling = pooling
        self._pool = build_pooling(pooling)
        if not self.in_channels or min(self.in_channels) < 1:
            raise PPLValueError(f"in_channels must hold one positive integer per branch, got {in_channels!r}")
        if num_classes < 1:
            raise PPLValueError(f"num_classes must be at least 1, got {num_classes}")
        self.classifiers = nn.ModuleList(
            nn.Conv2d(channels, num_classes, 1, bias=False) for channels in self.in_channels
        )
        self.bias = nn.Parameter(torch.zeros(num_classes)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw new weights from torch's initial distribution of the convolution over the concatenation."""
        bound = 1 / math.sqrt(sum(self.in_channels))
        for weight in self.classifiers.parameters():
            nn.init.uniform_(weight, -bound, bound)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Return logits (B,K): the pooled :meth:`class_maps`."""
        return self.pool(self.class_maps(maps))

    def pool(self, class_maps: Tensor) -> Tensor:
        """Return logits (B,K) of class maps (B,K,h,w)."""
        logits = self._pool(class_maps)
        return logits if self.bias is None else logits + self.bias

    def class_maps(self, maps: Sequence[Tensor]) -> Tensor:
        """Return class maps (B,K,h,w), before ReLU: the sum of :meth:`branch_class_maps`.

        Args:
            maps: one map (B,C_i,h,w) per branch, all of one size.

        Raises:
            PPLValueError: if the number, channels or sizes of the maps do not fit.
        """
        return functools.reduce(torch.add, self.branch_class_maps(maps))

    def branch_class_maps(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Return class maps (B,K,h,w) of every branch; they sum to :meth:`class_maps`."""
        self._check(maps)
        return [classifier(branch) for classifier, branch in zip(self.classifiers, maps, strict=True)]

    def extra_repr(self) -> str:
        """Show the branches and the classes."""
        return f"in_channels={self.in_channels}, num_classes={self.num_classes}, pooling={self.pooling!r}"

    def _check(self, maps: Sequence[Tensor]) -> None:
        shapes = [tuple(branch.shape) for branch in maps]
        if len(shapes) != len(self.in_channels):
            raise PPLValueError(f"maps must hold one map per branch, {len(self.in_channels)} in all, got {len(shapes)}")
        if any(len(shape) != 4 for shape in shapes) or tuple(shape[1] for shape in shapes) != self.in_channels:
            raise PPLValueError(f"maps must have shapes (B,C,h,w) with C = {self.in_channels}, got {shapes}")
        if any(shape[2:] != shapes[0][2:] for shape in shapes):
            raise PPLValueError(f"maps of all branches must have one size, got {shapes}")
