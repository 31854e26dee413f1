"""LayerCAM of a shallower stage, whose cells see less of their surroundings, and class maps sharpened by it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from itertools import zip_longest
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from ppl.backbones import Stage, default_cuts
from ppl.backbones.families import family_of
from ppl.backbones.patches import map_size, to_map
from ppl.backbones.stages import find_stage
from ppl.errors import PPLError, PPLValueError

__all__ = ["Evidence", "LayerTap", "layer_cam", "peak_one", "sharpen"]

Evidence: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""From (n,) indices of images and (n,) classes to LayerCAM maps (n,H,W), 0 or more."""

_EPS = 1e-5


def layer_cam(class_maps: Tensor, features: Tensor, images: Tensor, classes: Tensor, *, channels: int = 1) -> Tensor:
    """What the features of a layer, cell by cell, add to the evidence for a class.

    The gradient of the sum of the class's map, where it is positive, times the features.

    Args:
        class_maps: (B,K,h,w), computed from `features`; its graph is kept.
        features: the layer's output, of any layout; the first dimension is the batch.
        images: (n,) index 0..B-1 of each wanted pair of image and class.
        classes: (n,) its class 0..K-1.
        channels: the axis of the features' channels.

    Returns:
        (n, *features.shape[1:]) with one channel, float32, of both signs: LayerCAM's map before its ReLU.

    Source:
        LayerCAM (Jiang et al., IEEE TIP 2021), equations 6 to 8.

    Example:
        >>> features = torch.tensor([[[[1.0, 2.0]]]], requires_grad=True)
        >>> maps = torch.cat([features, -features], 1)
        >>> layer_cam(maps, features, torch.tensor([0, 0]), torch.tensor([0, 1])).flatten().tolist()
        [1.0, 2.0, 0.0, 0.0]
    """
    sums = class_maps.float().sum(dim=(2, 3))
    one = features[:1].detach().sum(dim=channels, keepdim=True)
    found = one.new_zeros((len(images), *one.shape[1:]), dtype=torch.float32)
    for chosen in _turns(images):
        own = images[chosen]
        (gradient,) = torch.autograd.grad(sums[own, classes[chosen]].sum(), features, retain_graph=True)
        products = gradient[own].float().relu() * features.detach()[own].float()
        found[chosen] = products.sum(dim=channels, keepdim=True)  # here: all channels of all pairs take gigabytes
    return found


def _turns(images: Tensor) -> list[Tensor]:
    """Positions of the pairs that share a backward pass: images do not see each other, so one serves a class of each.

    Found on the CPU in one go, for a device would be waited for at every turn.
    """
    places = defaultdict(list)
    for place, image in enumerate(images.tolist()):
        places[image].append(place)
    turns = zip_longest(*places.values())
    return [torch.tensor([place for place in turn if place is not None], device=images.device) for turn in turns]


def sharpen(total: Tensor, evidence: Tensor) -> Tensor:
    """Class maps times the square root of LayerCAM maps, which are first divided by their spatial maximum.

    The square root keeps cells of weak evidence; it is our choice, see the page of results.

    Args:
        total: (n,h,w), 0 or more.
        evidence: (n,h,w), 0 or more.

    Returns:
        (n,h,w), nowhere above `total`.

    Example:
        >>> sharpen(torch.tensor([[[4.0, 4.0]]]), torch.tensor([[[0.25, 1.0]]])).round().tolist()
        [[[2.0, 4.0]]]
    """
    return total * peak_one(evidence).sqrt()


def peak_one(maps: Tensor) -> Tensor:
    """(n,h,w) divided by their spatial maximum."""
    return maps / (maps.amax(dim=(1, 2), keepdim=True) + _EPS) if len(maps) else maps


class LayerTap:
    """Reads what one stage of a backbone hands on, as the root of a graph.

    Args:
        backbone: any backbone.
        stages: its stages, as `ppl.backbones.resolve_stages` finds them.
        stage: name of the stage to read; None is the last of the default cuts.

    Raises:
        PPLValueError: if there is no stage before the last, no such stage, or its output is more than one map.
    """

    def __init__(self, backbone: nn.Module, stages: Sequence[Stage], stage: str | None = None) -> None:
        names = default_cuts(stages)
        if not names:
            raise PPLValueError(
                f"method 'layercam' reads a stage before the last, and {type(backbone).__name__} has none: "
                "use method='whole'"
            )
        self.stage = stages[find_stage(stages, names[-1] if stage is None else stage)]
        if self.stage.layout == "list":
            raise PPLValueError(
                f"method 'layercam' reads one map, and stage {self.stage.name!r} of {type(backbone).__name__} returns "
                "several: use method='whole'"
            )
        self._final_reduction = stages[-1].reduction
        self._backbone, self._family = backbone, family_of(backbone)
        self._module = backbone.get_submodule(self.stage.module)

    def read(
        self, class_maps_of: Callable[[Tensor], tuple[Tensor, Tensor]], x: Tensor
    ) -> tuple[Tensor, Tensor, Evidence]:
        """Class maps and logits of images, and a function from pairs of image and class to LayerCAM maps (n,H,W).

        The graph of the pass begins at the stage and lives as long as that function.
        """
        kept: list[Tensor] = []

        def hook(module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
            torch.set_grad_enabled(True)  # until no_grad below is left
            kept.append((output[0] if isinstance(output, tuple) else output).detach().clone().requires_grad_())
            # a copy goes on, since a later layer may write into it
            onward = kept[-1].clone()
            return type(output)((onward, *output[1:])) if isinstance(output, tuple) else onward

        handle = self._module.register_forward_hook(hook)
        try:
            # the caller may be in inference mode, which records nothing
            with torch.inference_mode(False), torch.no_grad():
                class_maps, logits = class_maps_of(x)
        finally:
            handle.remove()
        if len(kept) != 1:
            raise PPLError(f"stage {self.stage.name!r} ran {len(kept)} times in one pass instead of once")

        def evidence(images: Tensor, classes: Tensor) -> Tensor:
            with torch.inference_mode(False):
                axis = 1 if self.stage.layout == "NCHW" else -1
                cells = layer_cam(class_maps, kept[0], images, classes, channels=axis)
            size = (class_maps.shape[2], class_maps.shape[3])
            stride = max(1, self._final_reduction // self.stage.reduction)
            size = map_size(kept[0], self.stage, size, stride, (x.shape[2], x.shape[3]))
            if self._family.order is not None:
                cells = cells[:, self._family.order(self._backbone, self.stage, size, cells.device)]
            return to_map(cells, self.stage, size)[:, 0].relu()

        return class_maps, logits, evidence
