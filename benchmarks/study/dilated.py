"""Dilated depthwise convolutions whose backward pass is not ten times slower than it need be on a CPU."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode


class FastDilated(TorchFunctionMode):
    """While active, depthwise convolutions with dilation have a backward pass of shifted products."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func is torch.conv2d and not kwargs:
            return conv2d(*args)
        return func(*args, **(kwargs or {}))


def conv2d(
    x: Tensor, weight: Tensor, bias: Any = None, stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1
) -> Tensor:
    """`torch.conv2d`, the same numbers."""
    step, pad, hop = (value[0] if isinstance(value, tuple) else value for value in (dilation, padding, stride))
    if step == 1 or hop != 1 or groups != x.shape[1] or isinstance(pad, str) or bias is not None:
        return torch.conv2d(x, weight, bias, stride, padding, dilation, groups)
    if torch.is_autocast_enabled("cpu"):
        x, weight = x.bfloat16(), weight.bfloat16()
    return _Dilated.apply(F.pad(x, (pad,) * 4) if pad else x, weight, step)


class _Dilated(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, x: Tensor, weight: Tensor, step: int) -> Tensor:
        context.save_for_backward(x, weight)
        context.step = step
        return torch.conv2d(x, weight, None, 1, 0, step, x.shape[1])

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        (x, weight), step = context.saved_tensors, context.step
        side = weight.shape[-1]
        height, width = gradient.shape[-2:]
        of_x = torch.conv2d(gradient, weight.flip(-1, -2), None, 1, step * (side - 1), step, x.shape[1])
        ones = gradient.new_ones(1, gradient.shape[0] * height * width)  # a matrix product sums faster than `sum`
        products = [
            (ones @ (x[:, :, i : i + height, j : j + width] * gradient).permute(0, 2, 3, 1).flatten(0, 2))[0]
            for i in range(0, step * side, step)
            for j in range(0, step * side, step)
        ]
        return of_x, torch.stack(products, -1).view(weight.shape).to(weight.dtype), None
