"""The 16-bit number format in which a device computes."""

from __future__ import annotations

import platform
import warnings

import torch

__all__ = ["half_precision"]


def half_precision(device: torch.device) -> torch.dtype | None:
    """Return the format for mixed precision: bfloat16, float16 on older GPUs, None on a CPU without bfloat16.

    A CPU without bfloat16 instructions converts number by number: a MobileNetV2 took thirteen times as long as in
    float32 (`benchmarks/backbones/half_precision.py`). A warning tells of it.

    Returns:
        The format for `torch.autocast`, or None if float32 is faster.

    Example:
        >>> half_precision(torch.device("cpu")) in (torch.bfloat16, None)
        True
    """
    if device.type == "cuda":
        # Emulated bfloat16 (T4, V100) is slower than float16.
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
