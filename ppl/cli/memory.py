"""How the C library keeps the memory that the program frees."""

from __future__ import annotations

import ctypes
import os

__all__ = ["keep_freed_memory"]

# Names and numbers of glibc's malloc.h.
_TRIM_THRESHOLD, _MMAP_MAX = -1, -4
_LARGEST_INT = 2**31 - 1


def keep_freed_memory() -> bool:
    """Tell the allocator of glibc to keep freed memory for the next allocation.

    By default glibc returns every freed block of more than 32 MB to the system, which clears the pages again at the
    next allocation. On the CPU a training step frees and allocates such blocks all the time, and spends up to a quarter
    of its time on cleared pages. The setting holds for the whole process and cannot be taken back, so only the command
    line makes it; a script sets the environment variables `MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=2147483647`.

    Returns:
        Whether the setting was made. It is not made for other C libraries, nor if the user has set one of the two
        environment variables.

    Source:
        mallopt(3), parameters M_MMAP_MAX and M_TRIM_THRESHOLD.
    """
    if {"MALLOC_MMAP_MAX_", "MALLOC_TRIM_THRESHOLD_"} & os.environ.keys():
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # musl and macOS have no mallopt, Windows has no CDLL(None).
        return False
    return bool(mallopt(_MMAP_MAX, 0) and mallopt(_TRIM_THRESHOLD, _LARGEST_INT))
