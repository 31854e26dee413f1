"""The random number generators of Python, NumPy and torch: seeded for a run, saved in checkpoints, given back."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

__all__ = ["random_state", "seeded", "set_random_state"]

_CPU = torch.device("cpu")


def random_state(device: torch.device | None = None) -> dict[str, Any]:
    """Return the state of all generators as numbers and tensors.

    Args:
        device: the GPU whose generator belongs to the state, if any.

    Example:
        >>> state = random_state()
        >>> first = random.random(), torch.rand(1).item()
        >>> set_random_state(state)
        >>> first == (random.random(), torch.rand(1).item())
        True
    """
    # the generator behind NumPy's module-level functions, from which transforms of users may draw
    name, keys, position, has_gauss, gauss = np.random.get_state(legacy=True)  # noqa: NPY002
    state: dict[str, Any] = {
        "python": random.getstate(),
        "numpy": (name, torch.from_numpy(np.asarray(keys).astype(np.int64)), position, has_gauss, gauss),
        "torch": torch.get_rng_state(),
    }
    if device is not None and device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def set_random_state(state: Mapping[str, Any], device: torch.device | None = None) -> None:
    """Restore the state that `random_state` returned.

    Args:
        state: the state.
        device: the GPU whose generator belongs to the state, if any.
    """
    random.setstate(state["python"])
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))  # noqa: NPY002
    torch.set_rng_state(state["torch"])
    if device is not None and device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"], device)


@contextmanager
def seeded(seed: int, device: torch.device = _CPU) -> Iterator[None]:
    """Seed all generators; afterwards restore the caller's state.

    Example:
        >>> with seeded(3):
        ...     first = torch.rand(1).item()
        >>> with seeded(3):
        ...     first == torch.rand(1).item()
        True
    """
    before = random_state(device)
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed every GPU
    if device.type == "cuda":
        torch.cuda.default_generators[device.index or 0].manual_seed(seed)
    elif device.type == "mps":
        torch.mps.manual_seed(seed)
    try:
        yield
    finally:
        set_random_state(before, device)
