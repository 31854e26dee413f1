"""How every kernel of the native engine is compiled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba

__all__ = ["kernel"]


def kernel(function: Callable[..., Any]) -> Any:
    """Compile when first called, without the GIL, and keep the machine code for the next process.

    No fast-math: the lattice must round exactly as pydensecrf does. Where no folder can be written the code is kept
    for this process only.
    """
    options = {"nogil": True, "error_model": "numpy"}
    try:
        return numba.njit(cache=True, **options)(function)
    except RuntimeError:
        return numba.njit(**options)(function)
