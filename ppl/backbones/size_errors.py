"""Tell a layer's refusal of its input's size from other errors."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TypeVar

import torch

from ppl.errors import PPLError

__all__ = ["attempt", "first_line", "size_error"]

T = TypeVar("T")

_OF_LAYERS = (RuntimeError, ValueError, AssertionError, IndexError)
_OF_DEVICES = (torch.OutOfMemoryError, getattr(torch, "AcceleratorError", torch.OutOfMemoryError))


def attempt(run: Callable[[], T]) -> tuple[T | None, Exception | None]:
    """Call `run` and return its result, and the error by which a layer refuses the size of its input.

    Layers have no common type of error for sizes: convolutions raise RuntimeError, timm AssertionError, transformers
    ValueError. Lack of memory, faults of the device and faults of the code (AttributeError, NameError, KeyError, ...)
    are raised.

    Returns:
        The result and None, or None and the error.

    Example:
        >>> print(attempt(lambda: torch.nn.Conv2d(3, 4, 9)(torch.zeros(1, 3, 5, 5)))[1])
        Calculated padded input size per channel: (5 x 5). Kernel size: (9 x 9). ...
    """
    try:
        return run(), None
    except _OF_LAYERS as error:
        if isinstance(error, _OF_DEVICES) or re.search("(allocate|not enough|out of) memory", str(error)):
            raise
        return None, error


def size_error(run: Callable[[], object]) -> Exception | None:
    """Return the error of :func:`attempt`, or None."""
    return attempt(run)[1]


def first_line(error: BaseException | None) -> str:
    """Return the first line of an error's message, after its type unless the error is one of `ppl`."""
    line = str(error).strip().partition("\n")[0]
    return line if isinstance(error, PPLError) else f"{type(error).__name__}: {line}"
