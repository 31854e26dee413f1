"""Dilated depthwise convolutions with a backward pass that is quick on a CPU.

python benchmarks/study/dilated.py    times it against PyTorch's own
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode


def fast_dilated(device: torch.device) -> AbstractContextManager[Any]:
    """:class:`FastDilated` on a CPU, for which it was written."""
    return FastDilated() if device.type == "cpu" else nullcontext()


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
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, Tensor | None, None]:
        (x, weight), step = context.saved_tensors, context.step
        side = weight.shape[-1]
        height, width = gradient.shape[-2:]
        of_x = torch.conv2d(gradient, weight.flip(-1, -2), None, 1, step * (side - 1), step, x.shape[1])
        if not context.needs_input_grad[1]:
            return of_x, None, None
        ones = gradient.new_ones(1, gradient.shape[0] * height * width)  # a matrix product sums faster than `sum`
        products = [
            (ones @ (x[:, :, i : i + height, j : j + width] * gradient).permute(0, 2, 3, 1).flatten(0, 2))[0]
            for i in range(0, step * side, step)
            for j in range(0, step * side, step)
        ]
        return of_x, torch.stack(products, -1).view(weight.shape).to(weight.dtype), None


def main() -> None:
    torch.set_num_threads(1)
    x = torch.randn(16, 960, 16, 12).bfloat16().contiguous(memory_format=torch.channels_last).requires_grad_()
    weight = torch.randn(960, 1, 3, 3).bfloat16().requires_grad_()
    seconds: dict[str, list[float]] = {"torch": [], "ours": []}
    for _ in range(8):
        for name, function in (("torch", torch.conv2d), ("ours", conv2d)):
            start = time.process_time()
            function(x, weight, None, 1, 2, 2, 960).sum().backward()
            seconds[name].append(time.process_time() - start)
    torch_s, ours_s = (statistics.median(values[2:]) for values in seconds.values())
    print(f"forward and backward: torch {1000 * torch_s:.1f} ms, ours {1000 * ours_s:.1f} ms, {torch_s / ours_s:.1f}x")


if __name__ == "__main__":
    main()
