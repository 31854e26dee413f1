"""Class maps and logits of a model in one forward pass, be it a `PPLNet` or a plain timm classifier."""

from __future__ import annotations

from functools import cached_property
from typing import Any, Protocol
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ppl.backbones import data_config, resolve_stages
from ppl.backbones.trace import runs_on, size_multiple
from ppl.cam.layercam import Evidence, LayerTap
from ppl.errors import PPLTypeError, PPLValueError

__all__ = ["ClassMapReader", "make_reader"]

# Every model of timm runs on images of the last one at least.
_SIDES = (32, 64, 96, 128)
# What sizes of images must be multiples of, by classifier: a reader lives for a call alone.
_KNOWN: WeakKeyDictionary[nn.Module, int] = WeakKeyDictionary()


class ClassMapReader(Protocol):
    """What `generate` asks of a model.

    Attributes:
        num_classes: K.
        data_config: mean, std and input_size of its images.
    """

    num_classes: int
    data_config: dict[str, Any]

    def padded(self, height: int, width: int) -> tuple[int, int]:
        """The size that images of this size are padded to: their own, or the next that the model takes."""

    def check_size(self, height: int, width: int) -> None:
        """Raise PPLValueError if the model does not take images of that size."""

    def check_method(self, method: str) -> None:
        """Raise PPLValueError or PPLTypeError if the model does not have what the method reads."""

    def __call__(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Images (B,3,H,W) to class maps (B,K,h,w), before ReLU, and logits (B,K)."""

    def whole(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The same of the un-patched branch alone; what has no branches gives what it always gives."""

    def layercam(self, x: Tensor) -> tuple[Tensor, Tensor, Evidence]:
        """As `whole`, and the evidence for them in a shallower stage."""


def make_reader(model: nn.Module) -> ClassMapReader:
    """Find out how to read class maps off a model.

    Args:
        model: a `PPLNet`, or a timm classifier whose head is global average pooling and one linear layer.

    Returns:
        The reader.

    Raises:
        PPLTypeError: if it is no module, or offers neither `class_maps` nor what timm's classifiers offer.
        PPLValueError: if it is a timm model without such a head.
    """
    if not isinstance(model, nn.Module):
        raise PPLTypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    if isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
        model = model.module
    if hasattr(model, "class_maps"):
        return _NetReader(model)
    if all(hasattr(model, name) for name in ("forward_features", "forward_head", "get_classifier")):
        return _TimmReader(model)
    raise PPLTypeError(
        f"{type(model).__name__} offers no class_maps and is no timm classifier: wrap its convolutional part in "
        "ppl.PPLNet(backbone, num_classes, mode='baseline', stages=[...])"
    )


class _NetReader:
    """Reads a `PPLNet`."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.num_classes: int = model.num_classes
        self.data_config: dict[str, Any] = model.data_config

    def padded(self, height: int, width: int) -> tuple[int, int]:
        least = self.model.min_size
        return _padded(height, width, least, getattr(self.model, "size_multiple", 1))

    def check_size(self, height: int, width: int) -> None:
        self.model.check_input_size(height, width)

    def __call__(self, x: Tensor) -> tuple[Tensor, Tensor]:
        maps = self.model.class_maps(x)
        return maps, self.model.pool(maps)

    def check_method(self, method: str) -> None:
        if method == "layercam":
            _ = self._tap  # made on first use, which would be at the first image

    def whole(self, x: Tensor) -> tuple[Tensor, Tensor]:
        if not hasattr(self.model, "unpatched_class_maps"):
            return self(x)
        branches = self.model.unpatched_class_maps(x)
        return branches[-1], self.model.pool(torch.stack(branches).sum(0))

    def layercam(self, x: Tensor) -> tuple[Tensor, Tensor, Evidence]:
        return self._tap.read(self.whole, x)

    @cached_property
    def _tap(self) -> LayerTap:
        if not hasattr(self.model, "stages"):
            raise PPLTypeError(
                f"method 'layercam' needs the stages of a backbone, and {type(self.model).__name__} names none: "
                "use method='cam'"
            )
        return LayerTap(self.model.backbone, self.model.stages)


class _TimmReader:
    """Reads a timm classifier by using its linear layer as a 1x1 convolution, and checks that this is what it is."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.name = (getattr(model, "pretrained_cfg", None) or {}).get("architecture") or type(model).__name__
        layer = model.get_classifier()
        if not isinstance(layer, (nn.Linear, nn.Conv2d)) or layer.weight[0, 0].numel() != 1:
            raise self._refusal(f"its classifier is {type(layer).__name__}, not one linear layer")
        self.layer = layer
        self.num_classes = layer.weight.shape[0]
        self.data_config = data_config(model)
        self._checked = False

    def padded(self, height: int, width: int) -> tuple[int, int]:
        least = 1 if min(height, width) >= _SIDES[-1] else self._least
        return _padded(height, width, (least, least), self._multiple)

    @property
    def _multiple(self) -> int:
        if self.model not in _KNOWN:
            _KNOWN[self.model] = 1 if self._fixed else size_multiple(self.model, self._least)
        return _KNOWN[self.model]

    @cached_property
    def _least(self) -> int:
        """One cell, or more where convolutions without padding need more."""
        info = getattr(self.model, "feature_info", None)
        stride = int(info[-1]["reduction"]) if info else 32
        if self._fixed:
            return stride
        return next(
            (side for side in (stride, *_SIDES) if side >= stride and runs_on(self.model, (side, side))), stride
        )

    @property
    def _fixed(self) -> bool:
        return bool((getattr(self.model, "pretrained_cfg", None) or {}).get("fixed_input_size"))

    def check_size(self, height: int, width: int) -> None:
        embed = getattr(self.model, "patch_embed", None)
        if getattr(embed, "strict_img_size", False) and tuple(embed.img_size) != (height, width):  # type: ignore[union-attr]
            native = "x".join(str(side) for side in embed.img_size)  # type: ignore[union-attr]
            raise PPLValueError(
                f"{self.name!r} was built for images of {native} and does not take {height}x{width}: "
                f"create it with strict_img_size=False, or resize to {native} and use the scale 1.0 alone"
            )

    def _features(self, x: Tensor) -> Any:
        try:
            return self.model.forward_features(x)
        except torch.cuda.OutOfMemoryError:
            raise
        except (AssertionError, RuntimeError, ValueError) as error:
            native, given = tuple(self.data_config["input_size"][1:]), tuple(x.shape[2:])
            if not self._fixed or given == native:
                raise
            size = "x".join(map(str, native))
            raise PPLValueError(
                f"{self.name!r} was built for images of {size} and does not take {'x'.join(map(str, given))}: "
                f"resize to {size} and use the scale 1.0 alone"
            ) from error

    def __call__(self, x: Tensor) -> tuple[Tensor, Tensor]:
        raw = self._features(x)
        features = self._as_map(raw)
        weight, bias = self.layer.weight.flatten(1), self.layer.bias
        if not self._checked:
            with torch.no_grad(), torch.autocast(x.device.type, enabled=False):
                raw = raw.to(weight.dtype)
                self._check(F.linear(self._as_map(raw).mean(dim=(2, 3)), weight, bias), self.model.forward_head(raw))
            self._checked = True
        maps = F.conv2d(features, weight[:, :, None, None])
        logits = maps.float().mean(dim=(2, 3))
        return maps, logits if bias is None else logits + bias.float()

    def check_method(self, method: str) -> None:
        if method == "layercam":
            _ = self._tap  # made on first use, which would be at the first image

    def whole(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self(x)

    def layercam(self, x: Tensor) -> tuple[Tensor, Tensor, Evidence]:
        return self._tap.read(self.whole, x)

    @cached_property
    def _tap(self) -> LayerTap:
        return LayerTap(self.model, resolve_stages(self.model))

    def _as_map(self, features: Any) -> Tensor:
        channels = self.layer.weight.shape[1]
        if isinstance(features, Tensor) and features.ndim == 4:
            if getattr(self.model, "output_fmt", "NCHW") == "NHWC" and features.shape[3] == channels:
                return features.permute(0, 3, 1, 2)
            if features.shape[1] == channels:
                return features
        shape = tuple(features.shape) if isinstance(features, Tensor) else type(features).__name__
        raise self._refusal(f"its features are {shape} where a map of {channels} channels is needed")

    def _check(self, pooled: Tensor, logits: Tensor) -> None:
        relative = 1e-3 if pooled.dtype in (torch.float32, torch.float64) else 5e-2
        tolerance = relative * float(logits.abs().max()) + 1e-6
        if not torch.allclose(pooled, logits, rtol=0, atol=tolerance, equal_nan=True):
            raise self._refusal(
                f"pooled class maps differ from its logits by {float((pooled - logits).abs().max()):.2g}, so more than "
                "average pooling stands between features and classifier"
            )

    def _refusal(self, reason: str) -> PPLValueError:
        return PPLValueError(
            f"{self.name!r} has no class maps, since {reason}: train ppl.create_model({self.name!r}, mode='baseline')"
        )


def _padded(height: int, width: int, least: tuple[int, int], multiple: int) -> tuple[int, int]:
    """The next height and width that are no smaller than `least` and multiples of `multiple`."""
    return -(-max(height, least[0]) // multiple) * multiple, -(-max(width, least[1]) // multiple) * multiple
