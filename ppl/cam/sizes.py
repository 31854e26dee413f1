"""Sizes of images that a classifier takes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

from torch import nn

from ppl.backbones.image_sizes import native_size, runs_on, size_multiple
from ppl.errors import PPLValueError

__all__ = ["SizeRule", "classifier_sizes", "net_sizes", "scaled_size"]

# Every model of timm takes images whose sides are at least the last of these.
_SIDES = (32, 64, 96, 128)


@dataclass(frozen=True)
class SizeRule:
    """The sizes of images that a model takes.

    Attributes:
        name: name of the model, for messages.
        least: the smallest (H,W).
        multiple: heights and widths must be multiples of this number.
        native: the only (H,W) that the model takes, or None.
        check: raises PPLValueError for a size that the model refuses.
    """

    name: str
    least: tuple[int, int]
    multiple: int
    native: tuple[int, int] | None
    check: Callable[[int, int], None]

    def padded(self, size: tuple[int, int]) -> tuple[int, int]:
        """Return the size that images are padded to: their own, or the next one that the model takes.

        Example:
            >>> SizeRule("net", (64, 64), 32, None, print).padded((40, 100))
            (64, 128)
        """
        height, width = (
            -(-max(side, least) // self.multiple) * self.multiple for side, least in zip(size, self.least, strict=True)
        )
        return height, width

    def check_size(self, size: tuple[int, int]) -> None:
        """Raise PPLValueError if the model does not take images of that size."""
        self.check(*size)
        if self.native is not None and size != self.native:
            raise self.refusal(size)

    def refusal(self, size: tuple[int, int]) -> PPLValueError:
        """Return the error for images of another size than the only one that the model takes."""
        native = "x".join(map(str, self.native or ()))
        return PPLValueError(
            f"{self.name!r} was built for images of {native} and does not take {size[0]}x{size[1]}: "
            f"resize the images to {native} and use the scale 1.0 alone"
        )


def net_sizes(net: Any) -> SizeRule:
    """Return the size rule of a `PPLNet`."""

    def check(height: int, width: int) -> None:
        net.check_input_size(height, width)

    return SizeRule(type(net).__name__, net.min_size, getattr(net, "size_multiple", 1), None, check)


def classifier_sizes(model: nn.Module, name: str, *, fixed: bool) -> SizeRule:
    """Find the sizes that a classifier takes, by passes on small black images.

    Args:
        model: the classifier.
        name: its name, for messages.
        fixed: whether the classifier takes images of one size alone.
    """
    if fixed:
        return SizeRule(
            name, (1, 1), 1, native_size(model), lambda height, width: _check_embed(model, name, height, width)
        )
    if model not in _KNOWN:
        info = getattr(model, "feature_info", None)
        stride = int(info[-1]["reduction"]) if info else 32
        sides = (side for side in (stride, *_SIDES) if side >= stride)
        least = next((side for side in sides if runs_on(model, (side, side))), stride)
        _KNOWN[model] = least, size_multiple(model, least)
    least, multiple = _KNOWN[model]
    return SizeRule(name, (least, least), multiple, None, lambda height, width: None)


_KNOWN: WeakKeyDictionary[nn.Module, tuple[int, int]] = WeakKeyDictionary()


def _check_embed(model: Any, name: str, height: int, width: int) -> None:
    """Refuse a size that a timm model was told to refuse when it was created."""
    embed = getattr(model, "patch_embed", None)
    if getattr(embed, "strict_img_size", False) and tuple(embed.img_size) != (height, width):  # type: ignore[union-attr]
        native = "x".join(str(side) for side in embed.img_size)  # type: ignore[union-attr]
        way = "dynamic_img_size=True" if hasattr(model, "dynamic_img_size") else "strict_img_size=False"
        raise PPLValueError(
            f"{name!r} was built for images of {native} and does not take {height}x{width}: create the model with "
            f"{way}, or resize the images to {native} and use the scale 1.0 alone"
        )


def scaled_size(size: tuple[int, int], scale: float) -> tuple[int, int]:
    """Return (H,W) of an image at a scale, at least one pixel.

    Example:
        >>> scaled_size((100, 3), 0.1)
        (10, 1)
    """
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))
