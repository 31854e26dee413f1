"""The file of the training state, which appears whole or not at all.

`state.pt` holds everything that the next step depends on, the weights included. A kill at any moment therefore leaves
files that belong together; `last.safetensors` and `best.safetensors` are for users. The file is read with
`torch.load(weights_only=True)`, so reading it runs no code.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch

from ppl.errors import PPLValueError
from ppl.io import atomic_write

__all__ = ["STATE_NAME", "changed_keys", "check_same_run", "load_state", "read_state", "save_state"]

STATE_NAME = "state.pt"
_FORMAT = 2  # raise the number when the contents change


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
    """Read the file that `save_state` wrote; all tensors are on the CPU.

    Raises:
        PPLValueError: if the file holds no training state.
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


def read_state(out: Path) -> dict[str, Any] | None:
    """Return the training state in the folder of a run, or None if there is none."""
    path = out / STATE_NAME
    return load_state(path) if path.is_file() else None


def check_same_run(
    out: Path, saved: Mapping[str, Any], now: Mapping[str, Any], *, done: int = 0, grows: Collection[str] = ()
) -> bool:
    """Raise PPLValueError if the run in a folder has another identity than the run that is about to start.

    A finished run may be given more epochs, and then also other values of the keys in `grows`. Any number of processes
    may open a finished run.

    Args:
        out: the folder, for the message.
        saved: the identity in the training state.
        now: the identity of the task.
        done: the finished epochs of the run.
        grows: keys that may change together with more epochs.

    Returns:
        Whether the run is finished and is to go on for more epochs.
    """
    finished = done >= saved.get("epochs", done + 1)
    if finished:
        saved = {**saved, "processes": now.get("processes")}
    longer = bool(finished and now["epochs"] > saved["epochs"])
    ignored = {"epochs", *grows} if longer else set()
    changed = changed_keys(*({key: value for key, value in one.items() if key not in ignored} for one in (saved, now)))
    if not changed:
        return longer
    if finished and not changed_keys(*({k: v for k, v in one.items() if k not in grows} for one in (saved, now))):
        fix = f"to go on training with them, set epochs above {saved['epochs']}; else use another folder"
    else:
        fix = f"use another folder, or delete {STATE_NAME} to start afresh"
    raise PPLValueError(f"{out} holds a run with other settings: {', '.join(changed)}; {fix}")


def changed_keys(saved: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """List the keys whose values differ, with both values; a tuple equals a list of the same items.

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
