"""Heads that are linear over a pooled map, for which the class activation map needs no gradient."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ppl.cam.layouts import MapLayout, to_map

__all__ = ["POOLS", "LinearHead", "find_linear_head"]


def _average(maps: Tensor) -> Tensor:
    return maps.float().mean(dim=(2, 3))


def _maximum(maps: Tensor) -> Tensor:
    return maps.float().amax(dim=(2, 3))


def _average_and_maximum(maps: Tensor) -> Tensor:
    return (_average(maps) + _maximum(maps)) / 2


def _both(maps: Tensor) -> Tensor:
    return torch.cat((_average(maps), _maximum(maps)), dim=1)


POOLS: dict[str, Callable[[Tensor], Tensor]] = {
    "avg": _average,
    "max": _maximum,
    "avgmax": _average_and_maximum,
    "catavgmax": _both,
}
"""Global poolings of maps (B,C,h,w), by timm's names."""


@dataclass(frozen=True)
class LinearHead:
    """A head of global pooling and one linear layer, in either order.

    Attributes:
        layer: name of the layer whose map the head reads.
        classifier: name of the linear layer behind the pooling; None if the map of `layer` is the class map itself.
        bias_of: name of the layer whose bias the class map holds; None if it holds none.
        pool: name in `POOLS`.
    """

    layer: str
    classifier: str | None
    bias_of: str | None
    pool: str

    def class_maps(self, model: nn.Module, features: Tensor, classes: Tensor) -> Tensor:
        """Return the class maps (B,n,h,w) of n classes, without bias and before ReLU."""
        if self.classifier is None:
            maps = features[:, classes]
            if self.bias_of is None:
                return maps
            bias: Any = model.get_submodule(self.bias_of).bias
            return torch.sub(maps, bias[classes, None, None])
        weight = self._weight(model)
        if self.pool == "catavgmax":
            weight = sum(weight.chunk(2, dim=1))  # type: ignore[assignment]
        return F.conv2d(features, weight[classes, :, None, None])

    def logits(self, model: nn.Module, features: Tensor) -> Tensor:
        """Return the logits (B,K) that this head makes of a map (B,C,h,w)."""
        pooled = POOLS[self.pool](features)
        if self.classifier is None:
            return pooled
        bias: Any = model.get_submodule(self.classifier).bias
        return F.linear(pooled, self._weight(model).float(), None if bias is None else bias.float())

    def _weight(self, model: nn.Module) -> Tensor:
        weight: Any = model.get_submodule(str(self.classifier)).weight
        return weight.flatten(1)  # type: ignore[no-any-return]


class Record(Protocol):
    """Inputs and outputs of layers in one pass, by the name of the layer."""

    inputs: dict[str, Any]
    outputs: dict[str, Tensor]

    def unchanged(self, name: str) -> bool:
        """Tell whether no later layer wrote into the output of a layer."""


@torch.no_grad()
def find_linear_head(
    model: nn.Module,
    record: Record,
    logits: Tensor,
    last: str,
    layouts: dict[str, MapLayout],
    image_size: tuple[int, int],
) -> LinearHead | None:
    """Find out whether logits are linear over the pooled map of the last layer.

    Args:
        model: the classifier.
        record: what its layers took and returned in one pass.
        logits: (B,K) of that pass.
        last: name of the last layer with a map.
        layouts: layouts of all maps.
        image_size: (H,W) of the images.

    Returns:
        The head, or None if more than pooling and one linear layer stand between the map and the logits.
    """
    if not record.unchanged(last):
        return None
    maps = to_map(record.outputs[last], layouts[last], image_size)
    if maps.shape[1] == logits.shape[1]:
        for pool in ("avg", "max"):
            if close(POOLS[pool](maps), logits):
                module = model.get_submodule(last)
                biased = isinstance(module, nn.Conv2d) and module.bias is not None
                return LinearHead(last, None, last if biased else None, pool)
    for name in reversed(record.outputs):
        output, given = record.outputs[name], record.inputs[name]
        if not _is_linear(model.get_submodule(name)) or not isinstance(given, Tensor):
            continue
        if output.flatten(1).shape != logits.shape or not close(output.flatten(1), logits):
            continue
        pooled = given.flatten(1)
        for pool, make in POOLS.items():
            expected = make(maps)
            if expected.shape == pooled.shape and close(expected, pooled):
                return LinearHead(last, name, None, pool)
    return None


def _is_linear(module: nn.Module) -> bool:
    if isinstance(module, nn.Conv2d):
        return module.kernel_size == (1, 1) and module.groups == 1
    return isinstance(module, nn.Linear)


def close(found: Tensor, expected: Tensor) -> bool:
    """Tell whether two tensors differ by no more than rounding, of half precision where one of them has it."""
    exact = {found.dtype, expected.dtype} <= {torch.float32, torch.float64}
    found, expected = found.float(), expected.float()
    tolerance = (1e-3 if exact else 5e-2) * float(expected.abs().max()) + 1e-6
    return torch.allclose(found, expected, rtol=0, atol=tolerance, equal_nan=True)
