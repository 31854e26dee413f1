"""What the layers of a tail see beyond the edge of a patch: zeros, as the figure draws it, or repeated real cells."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from ppl.backbones.plan import Plan
from ppl.errors import PPLValueError

__all__ = ["PADDINGS", "TailPadding", "check_padding", "replicate"]

PADDINGS = ("zeros", "replicate", "reflect")


def check_padding(padding: str) -> str:
    """Return `padding`, or raise PPLValueError if it is none of the three modes."""
    if padding not in PADDINGS:
        raise PPLValueError(f"padding must be one of {', '.join(PADDINGS)}, got {padding!r}")
    return padding


def replicate(x: Tensor, pad: Sequence[int]) -> Tensor:
    """`F.pad(x, pad, mode="replicate")`, which can be compiled: the gradient of torch's own fails there over strides.

    Args:
        x: maps (B,C,H,W).
        pad: cells to add on the left, on the right, at the top and at the bottom.

    Example:
        >>> replicate(torch.tensor([[[[1.0, 2.0]]]]), (1, 2, 0, 0)).flatten().tolist()
        [1.0, 1.0, 2.0, 2.0, 2.0]
    """
    if not torch.compiler.is_compiling():
        return F.pad(x, list(pad), mode="replicate")  # many times faster than slices that nothing fuses
    left, right, top, bottom = pad
    x = torch.cat([x[..., :1]] * left + [x] + [x[..., -1:]] * right, dim=-1)
    return torch.cat([x[..., :1, :]] * top + [x] + [x[..., -1:, :]] * bottom, dim=-2)


class TailPadding(TorchFunctionMode):
    """While active, convolutions after the cut pad with the border's own cells instead of zeros.

    It works on the calls that layers make, not on the layers: whatever pads by zeros (a `Conv2d` and its
    weight-standardised kin, or TensorFlow's "same" padding) is covered, and there is no state to restore. Padding of
    maximum pools never enters a maximum, so it stays; average pools leave their padding out of the mean.

    Args:
        mode: "replicate" or "reflect".
        plan: says whether the pass is past the cut; the dummy before it is left alone.
    """

    def __init__(self, mode: str, plan: Plan) -> None:
        super().__init__()
        self.mode = mode
        self.plan = plan

    def __torch_function__(
        self, func: Callable[..., Any], types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Rewrite the calls that pad a map; pass on all others."""
        kwargs = dict(kwargs or {})
        if self.plan.in_tail and (func is torch.conv2d or func is F.pad or func is F.avg_pool2d):
            args = args or (kwargs.pop("input"),)  # torch's name for what is `x` here
            if func is torch.conv2d:
                return self._conv2d(*args, **kwargs)
            return self._pad(*args, **kwargs) if func is F.pad else self._avg_pool2d(*args, **kwargs)
        return func(*args, **kwargs)

    def _border(self, x: Tensor, pad: Sequence[int]) -> Tensor:
        if self.mode == "reflect" and (max(pad[:2]) >= x.shape[-1] or max(pad[2:]) >= x.shape[-2]):
            raise PPLValueError(
                f"padding 'reflect' cannot reflect {max(pad)} cells of a {x.shape[-2]}x{x.shape[-1]} patch: "
                "use padding='replicate', a smaller grid or a larger input"
            )
        return replicate(x, pad) if self.mode == "replicate" else F.pad(x, list(pad), mode=self.mode)

    def _conv2d(
        self, x: Tensor, weight: Tensor, bias: Any = None, stride: Any = 1, padding: Any = 0, dilation: Any = 1,
        groups: int = 1,
    ) -> Tensor:  # fmt: skip
        if x.ndim == 4:
            if padding == "same":
                steps = (dilation, dilation) if isinstance(dilation, int) else dilation
                total = [step * (size - 1) for step, size in zip(steps, weight.shape[-2:], strict=True)]
                x = self._border(x, (total[1] // 2, total[1] - total[1] // 2, total[0] // 2, total[0] - total[0] // 2))
                padding = 0
            elif padding != "valid":
                pad_h, pad_w = (padding, padding) if isinstance(padding, int) else (padding[0], padding[-1])
                if pad_h or pad_w:
                    x = self._border(x, (pad_w, pad_w, pad_h, pad_h))
                padding = 0
        return torch.conv2d(x, weight, bias, stride, padding, dilation, groups)

    def _pad(self, x: Tensor, pad: Sequence[int], mode: str = "constant", value: float | None = None) -> Tensor:
        # only the zero padding of a map's two sides is a border; "same" padding of a maximum pool is -inf
        if x.ndim == 4 and len(pad) == 4 and mode == "constant" and not value and min(pad) >= 0:
            return self._border(x, pad)
        return F.pad(x, pad, mode, value)

    def _avg_pool2d(
        self, x: Tensor, kernel_size: Any, stride: Any = None, padding: Any = 0, ceil_mode: bool = False,
        count_include_pad: bool = True, divisor_override: int | None = None,
    ) -> Tensor:  # fmt: skip
        return F.avg_pool2d(x, kernel_size, stride, padding, ceil_mode, False, divisor_override)
