"""Inner loops written in a small part of Python, compiled by LLVM when first needed and kept on disk."""

from __future__ import annotations

from ppl.refine.kernel.compile import cache_folder, compiled
from ppl.refine.kernel.language import Kernel, kernel

__all__ = ["Kernel", "cache_folder", "compiled", "kernel"]
