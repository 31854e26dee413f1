"""A frozen backbone with small side branches that predict class boundaries (IRN) or affinity features (PSA)."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import nn

from ppl.backbones import CutBackbone, data_config, resolve_stages
from ppl.backbones.patches import image_grid, to_map
from ppl.errors import PPLValueError, nearest

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


class AffinityNetwork(nn.Module):
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

    mean: torch.Tensor
    std: torch.Tensor

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
        super().__init__()
        if kind not in HEADS:
            raise PPLValueError(f"unknown kind of affinity {kind!r}{nearest(str(kind), HEADS)}")
        self.kind = kind
        self.stride = HEADS[kind].default_stride if stride is None else stride
        if self.stride < 1:
            raise PPLValueError(f"stride must be at least 1, got {stride}")
        if isinstance(backbone, str):
            import timm

            module = timm.create_model(backbone, pretrained=False, num_classes=0, **dict(backbone_options or {}))
        else:
            module = copy.deepcopy(backbone)
        if weights is not None:
            _load_backbone(module, weights)
        # the arguments from which `load_affinity` builds the network; a backbone of None is not from timm
        self.config: dict[str, Any] = {
            "backbone": backbone if isinstance(backbone, str) else None,
            "backbone_options": dict(backbone_options or {}),
            "kind": kind,
            "stride": self.stride,
            "stages": None if stages is None else list(stages),
        }
        self.backbone = module.requires_grad_(False)
        found = resolve_stages(module, stages)
        self._cutter = CutBackbone(module, [stage.name for stage in found[:-1]], stages=stages)
        normal = data_config(module)
        self.register_buffer("mean", torch.tensor(normal["mean"]).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(normal["std"]).view(1, 3, 1, 1), persistent=False)
        channels = [stage.channels for stage in self._cutter.cuts] + [self._cutter.num_features]
        self.head = HEADS[kind](channels)

    def train(self, mode: bool = True) -> AffinityNetwork:
        """Set the mode of the head alone; the statistics of the backbone never change."""
        super().train(mode)
        self.backbone.eval()
        return self

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return boundary logits or features of a batch.

        Args:
            images: `(B, 3, H, W)` in [0, 1]; the network normalises them for the backbone.

        Returns:
            `(B, 1, h, w)` logits, or `(B, C, h, w)` features, with `h = ceil(H / stride)`.
        """
        height, width = images.shape[-2:]
        multiple = self._cutter.size_multiple  # some backbones accept no other sizes
        size = (-(-height // multiple) * multiple, -(-width // multiple) * multiple)
        with torch.no_grad():
            normalised = (images - self.mean) / self.std
            levels = self._levels(F.pad(normalised, (0, size[1] - width, 0, size[0] - height)), size)
        result: torch.Tensor = self.head(levels, _cells(size, self.stride))
        rows, columns = _cells((height, width), self.stride)
        return result[..., :rows, :columns]

    def _levels(self, images: torch.Tensor, size: tuple[int, int]) -> list[torch.Tensor]:
        final, taps = self._cutter.forward_features(images, taps=range(len(self._cutter.cuts)))
        levels = []
        for index, stage in enumerate(self._cutter.cuts):
            output = taps[index]
            if isinstance(output, (list, tuple)):
                levels.append(output[0])  # a stage with several resolutions: take the finest
                continue
            grid = None
            if stage.layout == "NLC":
                grid = image_grid(output.shape[1] - stage.prefix_tokens, size, stage.reduction)
            levels.append(to_map(output, stage, grid))
        return [*levels, final]


def _load_backbone(module: nn.Module, weights: Mapping[str, torch.Tensor]) -> None:
    own = module.state_dict()
    missing = [name for name, value in own.items() if name not in weights or weights[name].shape != value.shape]
    if missing:
        raise PPLValueError(
            f"the weights do not fit the backbone: {len(missing)} of {len(own)} tensors, such as {missing[0]!r}, are"
            " missing or have another shape; pass backbone.state_dict() of the same architecture"
        )
    module.load_state_dict({name: weights[name] for name in own})
