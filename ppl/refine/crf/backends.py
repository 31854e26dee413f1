"""The engines by name, and the choice of one."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

from ppl.errors import PPLValueError
from ppl.refine.crf.problem import Problem

__all__ = ["BACKENDS", "crf_backend", "solve"]

BACKENDS = {
    "native": "ppl.refine.crf.native",
    "torch": "ppl.refine.crf.torch_engine",
    "pydensecrf": "ppl.refine.crf.pydensecrf_engine",
}
"""Name -> the engine's module, with `mean_field(problem)` on the CPU and `mean_field_batch(problems)` in PyTorch."""


def crf_backend(backend: str = "auto", device: Any = "cpu") -> str:
    """Return the name of the engine that `crf` runs for these arguments, for records.

    Args:
        backend: `"auto"` or a key of `BACKENDS`.
        device: device of the probabilities: `"cpu"`, `"cuda:0"`, a `torch.device`.

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


def solve(problems: Sequence[Problem]) -> list[Any]:
    """Return the results of problems of the same settings, engine and device; the torch engine solves them together."""
    uncertain = [problem for problem in problems if len(problem.unary) > 1]
    if uncertain and uncertain[0].backend == "torch":
        solved = iter(_engine("torch").mean_field_batch(uncertain))
    else:
        solved = (_engine(problem.backend).mean_field(problem) for problem in uncertain)
    return [problem.finish(next(solved) if len(problem.unary) > 1 else problem.unary * 0 + 1) for problem in problems]


def _engine(name: str) -> Any:
    """Import the module of an engine."""
    return importlib.import_module(BACKENDS[name])
