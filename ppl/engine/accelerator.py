"""Processes, device and precision of a run, by Hugging Face accelerate, without traces in the caller's program."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import distributed

from ppl.backbones.half import half_precision
from ppl.engine.random_state import seeded
from ppl.errors import PPLValueError

__all__ = ["open_accelerator"]


@contextmanager
def open_accelerator(
    precision: Literal["no", "bf16", "fp16"] = "no", device: str = "auto", *, seed: int = 0
) -> Iterator[Any]:
    """Open an `accelerate.Accelerator` for one run and seed the random numbers of this process.

    Under `accelerate launch` or `torchrun` the accelerator is one of several processes. Afterwards the caller has back
    what the run changed: an `Accelerator` of his own with its settings, the number of torch's threads, the current GPU
    and the state of all random numbers.

    Args:
        precision: mixed precision; "bf16" on a CPU without bfloat16 instructions is "no", with a warning.
        device: "auto" for the first accelerator of this machine, "cpu", "cuda", "cuda:1", "mps".
        seed: seed of the first process; process i has `seed + i`.

    Yields:
        The accelerator.

    Raises:
        PPLValueError: if there is no such device, or the device cannot compute in that precision.

    Example:
        >>> with open_accelerator(device="cpu") as accelerator:
        ...     accelerator.device
        device(type='cpu')
    """
    threads = torch.get_num_threads()
    gpu = torch.cuda.current_device() if torch.cuda.is_initialized() else 0  # type: ignore[no-untyped-call]
    try:
        with _own_state():
            accelerator = _make_accelerator(precision, device)
            with seeded((seed + accelerator.process_index) % 2**32, accelerator.device):
                yield accelerator
    finally:
        torch.set_num_threads(threads)  # accelerate changes the number for several processes on a CPU
        if torch.cuda.is_initialized() and not distributed.is_initialized():  # type: ignore[no-untyped-call]
            torch.cuda.set_device(gpu)


@contextmanager
def _own_state() -> Iterator[None]:
    """Hide the state that all accelerators of a process share, and show it again afterwards.

    accelerate refuses a second accelerator with another precision or device, and changes the settings of the first.
    A group of processes that exists stays in use.
    """
    from accelerate.state import AcceleratorState, GradientState, PartialState

    states = [AcceleratorState, GradientState]
    if not distributed.is_initialized():
        states.append(PartialState)
    before = [dict(state._shared_state) for state in states]
    for state in states:
        state._shared_state.clear()
    try:
        yield
    finally:
        for state, content in zip(states, before, strict=True):
            if state is PartialState and distributed.is_initialized():
                continue  # this run started the group of processes
            state._shared_state.clear()
            state._shared_state.update(content)


def _make_accelerator(precision: Literal["no", "bf16", "fp16"], device: str) -> Any:
    from accelerate import Accelerator
    from accelerate.state import PartialState
    from accelerate.utils import DistributedDataParallelKwargs

    if device.startswith("cuda"):
        _choose_cuda(device)
    elif device == "mps" and not torch.backends.mps.is_available():
        raise PPLValueError('device "mps" is not there: torch sees no Metal GPU; use "auto" or "cpu"')
    elif device not in ("auto", "cpu", "mps"):
        raise PPLValueError(f'device {device!r} is not understood; use "auto", "cpu", "cuda", "cuda:1" or "mps"')
    cpu = device == "cpu"
    found = PartialState(cpu=cpu).device
    if precision == "fp16" and found.type == "cpu":
        raise PPLValueError('precision "fp16" needs a GPU; use "bf16" or "no" on a CPU')
    if precision == "bf16" and half_precision(found) is None:
        precision = "no"
    # safe for every training; the trainer switches the search off where every step uses all parameters
    ddp = DistributedDataParallelKwargs(find_unused_parameters=True)
    return Accelerator(cpu=cpu, mixed_precision=precision, kwargs_handlers=[ddp])


def _choose_cuda(device: str) -> None:
    count = torch.cuda.device_count()
    try:
        index = torch.device(device).index
    except RuntimeError:
        index = count
    if (index or 0) >= count:
        raise PPLValueError(f'device {device!r} is not there: torch sees {count} GPUs; use "auto" or "cpu"')
    if index is not None:
        torch.cuda.set_device(index)
