"""The state of a run between two steps, in one file that appears whole or not at all.

Everything that the next step depends on is in `state.pt`, the weights included, so that a kill at any moment leaves
files that belong together; `last.safetensors` and `best.safetensors` are for users. Nothing here is ever unpickled
into objects: the file is read with `torch.load(weights_only=True)`.
"""

from __future__ import annotations

import hashlib
import json
import pickle
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ppl.data import TaggedImages
from ppl.errors import PPLValueError
from ppl.io import atomic_write

__all__ = ["changed_keys", "fingerprint", "load_state", "rng_state", "save_state", "set_rng_state"]

_FORMAT = 1  # to be raised when the contents change


def save_state(path: Path, state: Mapping[str, Any]) -> None:
    """Write tensors, numbers, strings and containers of them.

    Example:
        >>> import tempfile
        >>> folder = tempfile.TemporaryDirectory()
        >>> save_state(Path(folder.name) / "state.pt", {"epoch": 3, "weight": torch.zeros(2)})
        >>> load_state(Path(folder.name) / "state.pt")["epoch"]
        3
        >>> folder.cleanup()
    """
    with atomic_write(path) as handle:
        torch.save({"format": _FORMAT, **state}, handle)


def load_state(path: Path) -> dict[str, Any]:
    """Read what `save_state` wrote, on the CPU.

    Raises:
        PPLValueError: if the file is not such a state.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, pickle.UnpicklingError, EOFError, LookupError, ValueError) as error:
        raise PPLValueError(
            f"{path} is not a training state ({str(error).partition(chr(10))[0]}); delete it to start afresh"
        ) from None
    found = state.pop("format", None) if isinstance(state, dict) else None
    if found != _FORMAT:
        raise PPLValueError(
            f"{path} holds no training state of format {_FORMAT}, which this version of ppl writes, but {found}; "
            "delete it to start afresh"
        )
    return state  # type: ignore[no-any-return]


def rng_state(device: torch.device | None = None) -> dict[str, Any]:
    """Python's, numpy's and torch's random state, as plain numbers and tensors.

    Args:
        device: also this accelerator's, if it is one.

    Example:
        >>> state = rng_state()
        >>> first = random.random(), torch.rand(1).item()
        >>> set_rng_state(state)
        >>> first == (random.random(), torch.rand(1).item())
        True
    """
    # the generator behind numpy's module-level functions, which transforms of users may draw from
    name, keys, position, has_gauss, gauss = np.random.get_state(legacy=True)  # noqa: NPY002
    state: dict[str, Any] = {
        "python": random.getstate(),
        "numpy": (name, torch.from_numpy(np.asarray(keys).astype(np.int64)), position, has_gauss, gauss),
        "torch": torch.get_rng_state(),
    }
    if device is not None and device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def set_rng_state(state: Mapping[str, Any], device: torch.device | None = None) -> None:
    """Put back what `rng_state` returned.

    Args:
        state: from `rng_state`.
        device: the accelerator whose state it holds, if any.
    """
    random.setstate(state["python"])
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))  # noqa: NPY002
    torch.set_rng_state(state["torch"])
    if device is not None and device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"], device)


def fingerprint(dataset: TaggedImages) -> str:
    """What makes a data set this one: the number of its images and a hash of their names, tags and classes.

    Example:
        >>> fingerprint(TaggedImages(("cat",), (), "none"))
        '0 images, ...'
    """
    content = [list(dataset.classes), [[sample.image_id, list(sample.labels)] for sample in dataset]]
    return f"{len(dataset)} images, {hashlib.sha256(json.dumps(content).encode()).hexdigest()[:12]}"


def changed_keys(saved: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Keys whose values differ, with both values; a tuple equals a list of the same items.

    Example:
        >>> changed_keys({"lr": 0.1, "size": [8, 8]}, {"lr": 0.2, "size": (8, 8)})
        ['lr (0.1 -> 0.2)']
    """
    saved, now = json.loads(json.dumps(saved)), json.loads(json.dumps(now))
    return [
        f"{key} ({saved.get(key)!r} -> {now.get(key)!r})"
        for key in sorted({*saved, *now})
        if saved.get(key) != now.get(key)
    ]
