"""Classify the maps of several branches together (the C and the classifier of the paper's figures)."""

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
    """Bias-free 1x1 classifier over the concatenation of several branches' maps, without the concatenation.

    A 1x1 convolution of concatenated maps is the sum of one 1x1 convolution per branch, so each branch keeps a
    classifier of its own. The wide tensor is never made and every branch's own class maps come for free.

    Args:
        in_channels: channels of each branch's map, one integer per branch.
        num_classes: K, the number of classes.
        pooling: from class maps to logits: "average", as the paper, "max", "generalised_mean:POWER",
            "log_sum_exp:SHARPNESS" or "ngwp:POWER".

    Raises:
        PPLValueError: if a number is below 1, there is no branch or no such pooling.

    Source:
        Concatenation C and classifier, Progressive Patch Learning (Li et al., IEEE TMM 2022), figures 2 and 5.

    Example:
        >>> import torch
        >>> fusion = GranularityFusion((64, 64), num_classes=20)
        >>> maps = [torch.randn(2, 64, 7, 9), torch.randn(2, 64, 7, 9)]
        >>> fusion(maps).shape, fusion.class_maps(maps).shape, list(fusion.state_dict())
        (torch.Size([2, 20]), torch.Size([2, 20, 7, 9]), ['classifiers.0.weight', 'classifiers.1.weight'])
    """

    def __init__(self, in_channels: Sequence[int], num_classes: int, pooling: str = "average") -> None:
        super().__init__()
        self.in_channels = tuple(in_channels)
        self.num_classes = operator.index(num_classes)  # a number of numpy would not go into a file
        self.pooling = pooling
        self._pool = build_pooling(pooling)
        if not self.in_channels or min(self.in_channels) < 1:
            raise PPLValueError(f"in_channels must hold one positive integer per branch, got {in_channels!r}")
        if num_classes < 1:
            raise PPLValueError(f"num_classes must be at least 1, got {num_classes}")
        self.classifiers = nn.ModuleList(
            nn.Conv2d(channels, num_classes, 1, bias=False) for channels in self.in_channels
        )
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw new weights, from the distribution that torch gives to the one wide convolution."""
        bound = 1 / math.sqrt(sum(self.in_channels))
        for weight in self.parameters():
            nn.init.uniform_(weight, -bound, bound)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Logits (B,K): the pooled :meth:`class_maps`."""
        return self.pool(self.class_maps(maps))

    def pool(self, class_maps: Tensor) -> Tensor:
        """Logits (B,K) of class maps (B,K,h,w): their spatial mean, or what `pooling` says."""
        return self._pool(class_maps)

    def class_maps(self, maps: Sequence[Tensor]) -> Tensor:
        """Class maps (B,K,h,w), before any ReLU: the sum of :meth:`branch_class_maps`.

        Args:
            maps: one map (B,C_i,h,w) per branch, all of one size.

        Raises:
            PPLValueError: if their number, channels or sizes are not those of this fusion.
        """
        return functools.reduce(torch.add, self.branch_class_maps(maps))

    def branch_class_maps(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Class maps (B,K,h,w) of every branch on its own; they sum to :meth:`class_maps`."""
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
