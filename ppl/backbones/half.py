"""Which 16-bit number format a device computes in."""

from __future__ import annotations

import platform
import warnings

import torch

__all__ = ["half_precision"]


def half_precision(device: torch.device) -> torch.dtype | None:
    """The format for mixed precision: bfloat16, float16 on older GPUs, or None on a CPU without bfloat16.

    A CPU without bfloat16 instructions computes in it too, but converts number by number: a MobileNetV2 was thirteen
    times as slow as in float32 (`benchmarks/backbones/half_precision.py`). A warning says so.

    Args:
        device: where the model is.

    Returns:
        The format for `torch.autocast`, or None if float32 is the faster one.

    Example:
        >>> half_precision(torch.device("cpu")) in (torch.bfloat16, None)
        True
    """
    if device.type == "cuda":
        # emulated bfloat16, as on a T4 or V100, is slower than their own float16
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    if device.type == "cpu" and not _cpu_has_bfloat16():
        warnings.warn("this CPU has no bfloat16 instructions: computing in float32, which is faster here", stacklevel=2)
        return None
    return torch.bfloat16


def _cpu_has_bfloat16() -> bool:
    if platform.machine().lower() in ("x86_64", "amd64"):
        return bool(torch.cpu._is_avx512_bf16_supported())
    ask = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", None)  # not in every build
    return ask is not None and bool(ask())
