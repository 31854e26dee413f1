"""Which engine runs: the choice, its name, and the function behind it."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from ppl.errors import PPLValueError

__all__ = ["BACKENDS", "crf_backend", "engine"]

BACKENDS = {
    "native": "ppl.refine.crf.native",
    "torch": "ppl.refine.crf.torch_engine",
    "pydensecrf": "ppl.refine.crf.pydensecrf_engine",
}
"""Name -> the module that holds it: `mean_field(image, unary, ...)` on the CPU, `mean_field_batch` in PyTorch."""


def crf_backend(backend: str = "auto", device: Any = "cpu") -> str:
    """The name of the engine that `crf` runs for these arguments: what a manifest records.

    Args:
        backend: `"auto"` or a key of `BACKENDS`.
        device: where the probabilities live: `"cpu"`, `"cuda:0"`, a `torch.device`.

    Returns:
        `"native"` (compiled, CPU), `"torch"` (any device) or `"pydensecrf"`. `"auto"` means torch for tensors that
        live on an accelerator and native otherwise.

    Raises:
        PPLValueError: for an unknown name; the message lists those that exist.

    Example:
        >>> crf_backend(), crf_backend(device="cuda"), crf_backend("pydensecrf")
        ('native', 'torch', 'pydensecrf')
    """
    if backend == "auto":
        return "native" if str(device).split(":")[0] == "cpu" else "torch"
    if backend not in BACKENDS:
        raise PPLValueError(f"no CRF backend named {backend!r}; use one of: auto, {', '.join(BACKENDS)}")
    return backend


def engine(name: str) -> Callable[..., Any]:
    """The mean-field function of an engine, imported when first used."""
    function: Callable[..., Any] = importlib.import_module(BACKENDS[name]).mean_field
    return function
