"""A frozen backbone with small side branches that predict class boundaries (IRN) or affinity features (PSA)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import nn

from ppl.errors import PPLValueError, nearest
from ppl.refine.frozen_backbone import FrozenBackbone

__all__ = ["HEADS", "AffinityNetwork", "BoundaryHead", "FeatureHead"]

Kind = Literal["edges", "features"]
_WIDTH, _GROUPS = 32, 4


def _cells(size: tuple[int, int], stride: int) -> tuple[int, int]:
    return (size[0] - 1) // stride + 1, (size[1] - 1) // stride + 1


class _SideBranches(nn.Module):
    """1x1 convolution and GroupNorm on every level; the results are resized to one size and concatenated."""

    def __init__(self, channels: Sequence[int], width: int, activation: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            nn.Sequential(nn.Conv2d(c, width, 1, bias=False), nn.GroupNorm(_GROUPS, width), activation())
            for c in channels
        )

    def forward(self, levels: Sequence[torch.Tensor], size: tuple[int, int]) -> torch.Tensor:
        """Map levels of any resolution to (B, width * levels, *size)."""
        resized = [
            F.interpolate(branch(level), size, mode="bilinear", align_corners=False)
            for branch, level in zip(self.branches, levels, strict=True)
        ]
        return torch.cat(resized, dim=1)


class BoundaryHead(nn.Module):
    """Predict logits of class boundaries from all levels of a backbone (the edge branch of IRN).

    IRN's second head, displacements to instance centres, is left out: class masks do not use the head, and its
    gradients do not reach the edge branch.

    Source: Ahn et al., "Weakly Supervised Learning of Instance Segmentation with Inter-pixel Relations", CVPR 2019,
    section 3.2.

    Example:
        >>> head = BoundaryHead([8, 16])
        >>> head([torch.zeros(1, 8, 10, 10), torch.zeros(1, 16, 5, 5)], (10, 10)).shape
        torch.Size([1, 1, 10, 10])
    """

    default_stride = 4

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        self.sides = _SideBranches(channels, _WIDTH, nn.ReLU)
        self.classifier = nn.Conv2d(_WIDTH * len(channels), 1, 1)

    def forward(self, levels: Sequence[torch.Tensor], size: tuple[int, int]) -> torch.Tensor:
        """Return logits (B, 1, h, w)."""
        logits: torch.Tensor = self.classifier(self.sides(levels, size))
        return logits


class FeatureHead(nn.Module):
    """Predict features whose L1 distance is small for cells that belong together (AffinityNet of PSA).

    Source: Ahn and Kwak, "Learning Pixel-level Semantic Affinity with Image-level Supervision", CVPR 2018, section
    3.2. The numbers of channels and the GroupNorm layers are ours.

    Example:
        >>> head = FeatureHead([8, 16], width=64)
        >>> head([torch.zeros(1, 8, 10, 10), torch.zeros(1, 16, 5, 5)], (5, 5)).shape
        torch.Size([1, 64, 5, 5])
    """

    default_stride = 8

    def __init__(self, channels: Sequence[int], width: int = 64) -> None:
        super().__init__()
        self.sides = _SideBranches(channels, 2 * _WIDTH, nn.ELU)
        self.mixer = nn.Sequential(nn.Conv2d(2 * _WIDTH * len(channels), width, 1), nn.ELU())

    def forward(self, levels: Sequence[torch.Tensor], size: tuple[int, int]) -> torch.Tensor:
        """Return features (B, width, h, w)."""
        features: torch.Tensor = self.mixer(self.sides(levels, size))
        return features


HEADS: Mapping[str, type[BoundaryHead] | type[FeatureHead]] = MappingProxyType(
    {"edges": BoundaryHead, "features": FeatureHead}
)
"""The head of each kind of affinity."""


class AffinityNetwork(FrozenBackbone):
    """A frozen backbone, and a head that learns affinities from the features of all its stages.

    Args:
        backbone: name of a timm model, which is built without weights, or a module, which is copied with its weights.
        kind: `"edges"`: class boundaries, for `random_walk(maps, edges)`; `"features"`: for
            `random_walk(maps, features=...)`.
        stride: pixels per cell of the output; 4 for edges and 8 for features by default, as in IRN and PSA.
        stages: dotted names of the stages, for a module without `feature_info`.
        backbone_options: further arguments for timm.
        weights: `state_dict` of the backbone, for example of a trained classifier; further tensors are ignored.

    Raises:
        PPLValueError: for an unknown kind, a stride below 1, a backbone whose stages are not found, or weights that do
            not fit the backbone.

    Example:
        >>> network = AffinityNetwork("test_resnet", kind="edges")
        >>> network(torch.zeros(2, 3, 66, 90)).shape  # logits of boundaries
        torch.Size([2, 1, 17, 23])
        >>> any(p.requires_grad for p in network.backbone.parameters())
        False
    """

    def __init__(
        self,
        backbone: str | nn.Module,
        *,
        kind: Kind = "edges",
        stride: int | None = None,
        stages: Sequence[str] | None = None,
        backbone_options: Mapping[str, Any] | None = None,
        weights: Mapping[str, torch.Tensor] | None = None,
    ) -> None:
        if kind not in HEADS:
            raise PPLValueError(f"unknown kind of affinity {kind!r}{nearest(str(kind), HEADS)}")
        if stride is not None and stride < 1:
            raise PPLValueError(f"stride must be at least 1, got {stride}")
        super().__init__(backbone, stages=stages, backbone_options=backbone_options, weights=weights)
        self.kind = kind
        self.stride = HEADS[kind].default_stride if stride is None else stride
        self.config |= {"kind": kind, "stride": self.stride}
        self.head = HEADS[kind](self.channels)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return boundary logits or features of a batch.

        Args:
            images: `(B, 3, H, W)` in [0, 1]; the network normalises them for the backbone.

        Returns:
            `(B, 1, h, w)` logits, or `(B, C, h, w)` features, with `h = ceil(H / stride)`.
        """
        height, width = images.shape[-2:]
        levels = self.levels(images)
        result: torch.Tensor = self.head(levels, _cells(self.padded_size(height, width), self.stride))
        rows, columns = _cells((height, width), self.stride)
        return result[..., :rows, :columns]
