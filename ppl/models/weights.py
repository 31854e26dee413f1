"""Read weights from files without unpickling, and load them into modules of exactly their shapes."""

from __future__ import annotations

import os
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from ppl.errors import PPLFileNotFoundError, PPLValueError

__all__ = ["check_state", "load_backbone_weights", "read_safetensors", "read_weights"]

_SHOWN = 3


def read_safetensors(path: str | os.PathLike[str]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors (on the CPU) and the metadata of a safetensors file.

    Raises:
        PPLFileNotFoundError: if there is no such file.
        PPLValueError: if the file is no complete safetensors file.
    """
    if not Path(path).is_file():
        raise PPLFileNotFoundError(f"no weights at {os.fspath(path)}")
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        cause = _cause(Path(path))
        if cause is None:
            with Path(path).open("rb") as handle:
                start = handle.read(2)
            if start == b"PK" or start[:1] == b"\x80":
                cause = (
                    "is a pickle, as torch.save writes, and models are read from safetensors: give the file that "
                    "training wrote, or pass it as weights to start from (checkpoint_path, --weights)"
                )
            else:
                cause = f"is not a whole safetensors file ({error}): was its download or copy cut short? Fetch it again"
        raise PPLValueError(f"{os.fspath(path)} {cause}") from error


def read_weights(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """Return the tensors of a `.safetensors` file or of a file that `torch.load(weights_only=True)` accepts.

    Weights may lie under "state_dict", "state_dict_ema" or "model"; the prefix "module." of DistributedDataParallel is
    removed.

    Returns:
        Tensors by name, on the CPU.

    Raises:
        PPLFileNotFoundError: if there is no such file.
        PPLValueError: if the file is broken, or holds anything but plain tensors (nothing is unpickled).
    """
    if Path(path).suffix == ".safetensors" or not Path(path).is_file():
        return read_safetensors(path)[0]
    try:
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, OSError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        cause = _cause(Path(path)) or (
            f"cannot be read as plain tensors ({reason}): fetch it again if its download was cut short, else convert "
            "it to safetensors with the program that wrote it"
        )
        raise PPLValueError(f"{os.fspath(path)} {cause}") from error
    for key in ("state_dict", "state_dict_ema", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
            break
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        raise PPLValueError(f"{os.fspath(path)} holds no state_dict of tensors")
    return {str(name).removeprefix("module."): value for name, value in content.items()}


def _cause(path: Path) -> str | None:
    """Tell why a file holds no weights at all; None if its first bytes do not tell."""
    with path.open("rb") as handle:
        start = handle.read(64).lstrip()
    if not start:
        return "is empty: fetch it again"
    if start.startswith(b"version https://git-lfs"):
        return "is a pointer of Git LFS and not the weights: run `git lfs pull` where it was cloned"
    if start.startswith(b"<"):
        return "is a web page and not the weights: fetch the file behind the download button"
    return None


def load_backbone_weights(backbone: nn.Module, path: str | os.PathLike[str]) -> None:
    """Load weights with timm's keys into a timm backbone; weights of a classifier are ignored.

    Raises:
        PPLFileNotFoundError: if there is no such file.
        PPLValueError: if the weights belong to another model; the message names the first keys or shapes that differ.
    """
    config = getattr(backbone, "pretrained_cfg", None) or {}
    names = config.get("classifier") or ()
    heads = tuple(f"{name}." for name in ([names] if isinstance(names, str) else names))
    state = read_weights(path)
    if any(name.startswith("fusion.") for name in state):  # a PPLNet
        prefix = "backbone."
        state = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
    state = {name: value for name, value in state.items() if not (heads and name.startswith(heads))}
    wanted = {name: value for name, value in backbone.state_dict().items() if not (heads and name.startswith(heads))}
    # Checkpoints older than torch 0.4.1 have no such counters, and torch does not need them.
    counters = {name for name in wanted if name.endswith("num_batches_tracked") and name not in state}
    wanted = {name: value for name, value in wanted.items() if name not in counters}
    check_state(state, wanted, os.fspath(path))
    backbone.load_state_dict(state, strict=False)


def check_state(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor], path: str) -> None:
    """Raise PPLValueError unless all names and shapes agree; the message names the first that differ."""
    missing = [name for name in wanted if name not in state]
    extra = [name for name in state if name not in wanted]
    shapes = [
        f"{name} has shape {tuple(state[name].shape)}, not {tuple(wanted[name].shape)}"
        for name in wanted
        if name in state and state[name].shape != wanted[name].shape
    ]
    parts = [
        f"{label} {', '.join(found[:_SHOWN])}" + (f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else "")
        for label, found in (("lacks", missing), ("has unknown", extra), ("differs in", shapes))
        if found
    ]
    if parts:
        raise PPLValueError(f"{path} is a checkpoint of another model: it {'; it '.join(parts)}")
