"""Padding at the borders of patches: zeros, or repeated or mirrored cells of the patch itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from ppl.errors import PPLValueError

__all__ = ["PADDINGS", "BorderPadding", "border_padding", "check_padding", "pad_map", "replicate"]

PADDINGS = ("zeros", "replicate", "reflect")


def check_padding(padding: str) -> str:
    """Return `padding`, or raise PPLValueError if it is no known mode."""
    if padding not in PADDINGS:
        raise PPLValueError(f"padding must be one of {', '.join(PADDINGS)}, got {padding!r}")
    return padding


def replicate(x: Tensor, pad: Sequence[int]) -> Tensor:
    """Pad a map with copies of its outermost cells.

    The result is that of `F.pad(x, pad, mode="replicate")`. Under `torch.compile`, whose gradient of `F.pad` fails for
    some memory layouts, slices are concatenated instead.

    Args:
        x: maps (B,C,H,W).
        pad: cells to add on the left, on the right, at the top and at the bottom.

    Returns:
        Maps (B,C,H+top+bottom,W+left+right).

    Example:
        >>> replicate(torch.tensor([[[[1.0, 2.0]]]]), (1, 2, 0, 0)).flatten().tolist()
        [1.0, 1.0, 2.0, 2.0, 2.0]
    """
    if not torch.compiler.is_compiling():
        return F.pad(x, list(pad), mode="replicate")
    left, right, top, bottom = pad
    x = torch.cat([x[..., :1]] * left + [x] + [x[..., -1:]] * right, dim=-1)
    return torch.cat([x[..., :1, :]] * top + [x] + [x[..., -1:, :]] * bottom, dim=-2)


def pad_map(x: Tensor, pad: Sequence[int], mode: str) -> Tensor:
    """Pad a map (B,C,H,W) by `pad` = (left, right, top, bottom) cells in one of the modes of `PADDINGS`.

    Raises:
        PPLValueError: if the map is too small for "reflect".
    """
    if mode == "zeros":
        return F.pad(x, list(pad))
    if mode == "replicate":
        return replicate(x, pad)
    if max(pad[:2]) >= x.shape[-1] or max(pad[2:]) >= x.shape[-2]:
        raise PPLValueError(
            f"padding 'reflect' cannot reflect {max(pad)} cells of a {x.shape[-2]}x{x.shape[-1]} map: "
            "use padding='replicate', a smaller grid or a larger input"
        )
    return F.pad(x, list(pad), mode="reflect")


def border_padding(mode: str) -> AbstractContextManager[Any]:
    """Make convolutions pad with border cells while the context is open; "zeros" changes nothing.

    Example:
        >>> conv = torch.nn.Conv2d(1, 1, 3, padding=1, bias=False)
        >>> _ = torch.nn.init.ones_(conv.weight)
        >>> with border_padding("replicate"):
        ...     conv(torch.ones(1, 1, 2, 2)).flatten().tolist()
        [9.0, 9.0, 9.0, 9.0]
    """
    return nullcontext() if mode == "zeros" else BorderPadding(mode)


class BorderPadding(TorchFunctionMode):
    """Replace the zero padding of convolutions while the mode is active.

    The mode intercepts calls of torch's functions, so every layer that pads is covered (`Conv2d`, weight-standardised
    convolutions, TensorFlow's "same" padding) and no layer is changed. Average pools leave their padding out of the
    mean. Max pools pad with minus infinity and stay as they are.

    Args:
        mode: "replicate" or "reflect".
        active: whether padding is replaced from the start; set the attribute `active` to switch later.
    """

    def __init__(self, mode: str, *, active: bool = True) -> None:
        super().__init__()
        self.mode = mode
        self.active = active

    def __torch_function__(
        self, func: Callable[..., Any], types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Rewrite the calls that pad a map; pass on all others."""
        kwargs = dict(kwargs or {})
        if self.active and (func is torch.conv2d or func is F.pad or func is F.avg_pool2d):
            args = args or (kwargs.pop("input"),)  # torch's name of the argument that is `x` here
            if func is torch.conv2d:
                return self._conv2d(*args, **kwargs)
            return self._pad(*args, **kwargs) if func is F.pad else self._avg_pool2d(*args, **kwargs)
        return func(*args, **kwargs)

    def _conv2d(
        self, x: Tensor, weight: Tensor, bias: Any = None, stride: Any = 1, padding: Any = 0, dilation: Any = 1,
        groups: int = 1,
    ) -> Tensor:  # fmt: skip
        if x.ndim == 4:
            if padding == "same":
                steps = (dilation, dilation) if isinstance(dilation, int) else dilation
                total = [step * (size - 1) for step, size in zip(steps, weight.shape[-2:], strict=True)]
                pad = (total[1] // 2, total[1] - total[1] // 2, total[0] // 2, total[0] - total[0] // 2)
                x, padding = pad_map(x, pad, self.mode), 0
            elif padding != "valid":
                pad_h, pad_w = (padding, padding) if isinstance(padding, int) else (padding[0], padding[-1])
                if pad_h or pad_w:
                    x = pad_map(x, (pad_w, pad_w, pad_h, pad_h), self.mode)
                padding = 0
        return torch.conv2d(x, weight, bias, stride, padding, dilation, groups)

    def _pad(self, x: Tensor, pad: Sequence[int], mode: str = "constant", value: float | None = None) -> Tensor:
        # Only zero padding of both sides of a map is a border: "same" padding of a max pool is minus infinity.
        if x.ndim == 4 and len(pad) == 4 and mode == "constant" and not value and min(pad) >= 0:
            return pad_map(x, pad, self.mode)
        return F.pad(x, pad, mode, value)

    def _avg_pool2d(
        self, x: Tensor, kernel_size: Any, stride: Any = None, padding: Any = 0, ceil_mode: bool = False,
        count_include_pad: bool = True, divisor_override: int | None = None,
    ) -> Tensor:  # fmt: skip
        return F.avg_pool2d(x, kernel_size, stride, padding, ceil_mode, False, divisor_override)
