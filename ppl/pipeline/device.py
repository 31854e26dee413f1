"""The device of a run."""

from __future__ import annotations

import os

import torch

from ppl.errors import PPLValueError

__all__ = ["torch_device"]


def torch_device(name: str) -> torch.device:
    """Return the device of a name; "auto" is the accelerator of this machine, or else the CPU.

    Of the processes that a launcher started on one machine, each has the GPU of its local rank by "auto" or "cuda".

    Args:
        name: "auto", or a name that torch knows: "cpu", "cuda", "cuda:1", "mps".

    Raises:
        PPLValueError: if torch cannot use the device on this machine.

    Example:
        >>> torch_device("cpu")
        device(type='cpu')
    """
    if name == "auto":
        accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
        return _of_local_rank(accelerator or torch.device("cpu"))
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise PPLValueError(f'device {name!r} cannot be used ({reason}); use "auto" or "cpu"') from None
    return _of_local_rank(device)


def _of_local_rank(device: torch.device) -> torch.device:
    if device.type != "cuda" or device.index is not None or "LOCAL_RANK" not in os.environ:
        return device
    own = torch.device("cuda", int(os.environ["LOCAL_RANK"]) % torch.cuda.device_count())
    torch.cuda.set_device(own)
    return own
