"""Processes and precision of a training run."""

from __future__ import annotations

from typing import Any, Literal

from ppl.backbones.half import half_precision
from ppl.errors import PPLValueError

__all__ = ["make_accelerator"]


def make_accelerator(precision: Literal["no", "bf16", "fp16"] = "no", device: str = "auto") -> Any:
    """A Hugging Face `Accelerator`: one process, or one of several when started by `accelerate launch` or `torchrun`.

    Args:
        precision: of mixed-precision training; "bf16" on a CPU that has no bfloat16 is "no", and a warning says so.
        device: "auto" takes the accelerator that is there, "cpu" the processor, "cuda:1" that GPU.

    Returns:
        The accelerator.

    Raises:
        PPLValueError: if there is no such device, or it cannot compute in that precision.
    """
    import torch
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState, PartialState
    from accelerate.utils import DistributedDataParallelKwargs

    # accelerate keeps one state per process and refuses another precision or device than the first run's
    AcceleratorState._reset_state(reset_partial_state=not torch.distributed.is_initialized())
    if device.startswith("cuda"):
        _choose_cuda(device)
    elif device == "mps" and not torch.backends.mps.is_available():
        raise PPLValueError('device "mps" is not there: torch sees no Metal GPU; use "auto" or "cpu"')
    elif device not in ("auto", "cpu", "mps"):
        raise PPLValueError(f'device {device!r} is not understood; use "auto", "cpu", "cuda", "cuda:1" or "mps"')
    cpu = device == "cpu"
    place = PartialState(cpu=cpu).device
    if precision == "fp16" and place.type == "cpu":
        raise PPLValueError('precision "fp16" needs a GPU; use "bf16" or "no" on a CPU')
    if precision == "bf16" and half_precision(place) is None:
        precision = "no"
    # warm-up and frozen parts leave parameters without a gradient
    ddp = DistributedDataParallelKwargs(find_unused_parameters=True)
    return Accelerator(cpu=cpu, mixed_precision=precision, kwargs_handlers=[ddp])


def _choose_cuda(device: str) -> None:
    import torch

    count = torch.cuda.device_count()
    try:
        index = torch.device(device).index
    except RuntimeError:
        index = count
    if (index or 0) >= count:
        raise PPLValueError(f'device {device!r} is not there: torch sees {count} GPUs; use "auto" or "cpu"')
    if index is not None:
        torch.cuda.set_device(index)
