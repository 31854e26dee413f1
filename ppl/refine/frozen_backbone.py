"""A backbone that does not learn, as the source of features for small heads."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import nn

from ppl.backbones import CutBackbone, data_config, default_cuts, resolve_stages
from ppl.backbones.patches import image_grid, to_map
from ppl.backbones.stages import Stage
from ppl.errors import PPLValueError
from ppl.refine.arrays import as_image

__all__ = ["FrozenBackbone"]

Network = TypeVar("Network", bound="FrozenBackbone")


class FrozenBackbone(nn.Module):
    """A frozen backbone whose stages give maps of features; subclasses add a head that learns.

    Args:
        backbone: name of a timm model, which is built without weights, or a module, which is copied with its weights.
        stages: dotted names of the stages, for a module without `feature_info`.
        backbone_options: further arguments for timm.
        weights: `state_dict` of the backbone, for example of a trained classifier; further tensors are ignored.

    Raises:
        PPLValueError: for a backbone whose stages are not found, or weights that do not fit the backbone.

    Example:
        >>> network = FrozenBackbone("test_resnet")
        >>> [tuple(level.shape[1:]) for level in network.levels(torch.zeros(1, 3, 64, 96))]
        [(32, 32, 48), (32, 16, 24), (48, 8, 12), (192, 4, 6), (96, 2, 3)]
        >>> any(p.requires_grad for p in network.backbone.parameters())
        False
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(
        self,
        backbone: str | nn.Module,
        *,
        stages: Sequence[str] | None = None,
        backbone_options: Mapping[str, Any] | None = None,
        weights: Mapping[str, torch.Tensor] | None = None,
    ) -> None:
        super().__init__()
        if isinstance(backbone, str):
            import timm

            module = timm.create_model(backbone, pretrained=False, num_classes=0, **dict(backbone_options or {}))
        else:
            module = copy.deepcopy(backbone)
        if weights is not None:
            _load_backbone(module, weights)
        # The arguments that a file keeps to build the network again; a backbone of None is not from timm.
        self.config: dict[str, Any] = {
            "backbone": backbone if isinstance(backbone, str) else None,
            "backbone_options": dict(backbone_options or {}),
            "stages": None if stages is None else list(stages),
        }
        self.backbone = module.requires_grad_(False)
        found = resolve_stages(module, stages)
        self._default_cuts = default_cuts(found)
        self._cutter = CutBackbone(module, [stage.name for stage in found[:-1]], stages=stages)
        normal = data_config(module)
        self.register_buffer("mean", torch.tensor(normal["mean"]).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(normal["std"]).view(1, 3, 1, 1), persistent=False)

    @property
    def channels(self) -> list[int]:
        """The number of channels of each level."""
        return [*(stage.channels for stage in self._cutter.cuts), self._cutter.num_features]

    @property
    def default_levels(self) -> list[int]:
        """The indices of the levels at the backbone's default cuts, from the first to the last."""
        return [index for index, stage in enumerate(self._cutter.cuts) if stage.name in self._default_cuts]

    def train(self: Network, mode: bool = True) -> Network:
        """Set the mode of the head alone; the statistics of the backbone never change."""
        super().train(mode)
        self.backbone.eval()
        return self

    def image_tensor(self, image: Any) -> torch.Tensor:
        """Return an image `(H, W, 3)`, uint8 or in [0, 1], as the input `(1, 3, H, W)` on the network's device."""
        shape = tuple(image.shape)
        pixels = as_image(image, (shape[-3], shape[-2]) if len(shape) == 3 else (0, 0))
        return pixels.permute(2, 0, 1)[None].to(self.mean)

    def padded_size(self, height: int, width: int) -> tuple[int, int]:
        """Return the next larger size that the backbone accepts."""
        multiple = self._cutter.size_multiple  # Some backbones accept no other sizes.
        return -(-height // multiple) * multiple, -(-width // multiple) * multiple

    @torch.no_grad()
    def levels(self, images: torch.Tensor, chosen: Sequence[int] | None = None) -> list[torch.Tensor]:
        """Return the maps of stages. The layers after the deepest of them do not run.

        Args:
            images: `(B, 3, H, W)` in [0, 1]; they are normalised for the backbone, and padded by zeros at the right and
                the bottom to a size that it accepts.
            chosen: indices of the levels to return, counted from the first stage; None for all.

        Returns:
            `(B, C, h, w)` for each chosen level, in the order of `chosen`.
        """
        cuts = self._cutter.cuts
        chosen = range(len(cuts) + 1) if chosen is None else chosen
        height, width = images.shape[-2:]
        size = self.padded_size(height, width)
        padded = F.pad((images - self.mean) / self.std, (0, size[1] - width, 0, size[0] - height))
        taps = sorted({index for index in chosen if index != len(cuts)})
        if len(cuts) in chosen:
            final, outputs = self._cutter.forward_features(padded, taps)
            maps = {len(cuts): final}
        else:
            outputs, maps = self._cutter.tapped_features(padded, taps), {}
        maps |= {index: _level(outputs[index], cuts[index], size) for index in taps}
        return [maps[index] for index in chosen]


def _level(output: Any, stage: Stage, size: tuple[int, int]) -> torch.Tensor:
    """Return the output of a stage as a map (B,C,h,w), for images of that size."""
    if isinstance(output, (list, tuple)):
        finest: torch.Tensor = output[0]  # A stage with several resolutions.
        return finest
    grid = None
    if stage.layout == "NLC":
        grid = image_grid(output.shape[1] - stage.prefix_tokens, size, stage.reduction)
    return to_map(output, stage, grid)


def _load_backbone(module: nn.Module, weights: Mapping[str, torch.Tensor]) -> None:
    own = module.state_dict()
    missing = [name for name, value in own.items() if name not in weights or weights[name].shape != value.shape]
    if missing:
        raise PPLValueError(
            f"the weights do not fit the backbone: {len(missing)} of {len(own)} tensors, such as {missing[0]!r}, are"
            " missing or have another shape; pass backbone.state_dict() of the same architecture"
        )
    module.load_state_dict({name: weights[name] for name in own})
