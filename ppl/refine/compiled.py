"""Compile the inner loops of refiners with numba: no interpreter lock, machine code cached on disk."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from numba import njit

__all__ = ["kernel"]


def kernel(*, variant: str = "", cached: bool = False, fused: bool = False) -> Callable[[Callable[..., Any]], Any]:
    """Make a decorator that compiles a function when it is first called.

    Numba keeps machine code in `NUMBA_CACHE_DIR` if that variable is set, else in `__pycache__` beside the source file,
    else in the user's cache folder. If none can be written, each process compiles for itself.

    Args:
        variant: distinguishes functions that are made by one `def` with different constants.
        cached: keep the machine code on disk; for functions that Python calls. Functions that only kernels call become
            part of the machine code of their callers.
        fused: allow one rounding for a product and a sum.

    Returns:
        The decorator.

    Example:
        >>> import numpy as np
        >>> @kernel()
        ... def double(values):
        ...     for i in range(len(values)):
        ...         values[i] *= 2
        >>> values = np.arange(3)
        >>> double(values)
        >>> values.tolist()
        [0, 2, 4]
    """
    options: dict[str, Any] = {"nogil": True, "error_model": "numpy", "fastmath": {"contract"} if fused else False}

    def compile_lazily(function: Callable[..., Any]) -> Any:
        if not cached:
            return njit(**options)(function)
        # Numba names cache files after the function and sees changes of its own file only. A name for each variant
        # keeps processes that compile different variants at once apart; the hash covers the files of the callees.
        function.__qualname__ = (
            f"{function.__name__}{variant}_{_fingerprint(Path(function.__code__.co_filename).parent)}"
        )
        try:
            return njit(cache=True, **options)(function)
        except RuntimeError:  # numba finds no folder to write to
            return njit(**options)(function)

    return compile_lazily


@cache
def _fingerprint(folder: Path) -> str:
    """Return a hash of the Python files of a folder and of this file, which sets the compiler's options."""
    digest = hashlib.sha256()
    for path in [Path(__file__), *sorted(folder.glob("*.py"))]:
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]
