"""The file of a network on a frozen backbone: its weights, and the arguments that build it again."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from torch import nn

from ppl.errors import PPLFileNotFoundError, PPLValueError
from ppl.io import atomic_write
from ppl.models.weights import read_safetensors
from ppl.refine.frozen_backbone import FrozenBackbone

__all__ = ["read_network", "write_network"]

Network = TypeVar("Network", bound=FrozenBackbone)


def write_network(network: FrozenBackbone, path: str | os.PathLike[str], kind: str) -> None:
    """Write a network with its backbone as safetensors, whole or not at all.

    Args:
        network: the network.
        path: the file.
        kind: what the network is, such as "affinity network"; the file keeps its arguments under this name.
    """
    from safetensors.torch import save

    state = {name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()}
    with atomic_write(path) as handle:
        handle.write(save(state, metadata={f"ppl_{kind.replace(' ', '_')}": json.dumps(network.config)}))


def read_network(
    path: Path, kind: str, build: Callable[..., Network], *, backbone: nn.Module | None, hint: str
) -> Network:
    """Read a network that `write_network` wrote, in evaluation mode.

    Args:
        path: the file.
        kind: as for `write_network`.
        build: the class of the network.
        backbone: a module of the same architecture, for a network whose backbone is not a timm model.
        hint: what to do about a file of another kind, for the error.

    Raises:
        PPLFileNotFoundError: if the file is missing.
        PPLValueError: if the file holds no network of this kind, or `backbone` is needed to build it.
    """
    if not path.is_file():
        raise PPLFileNotFoundError(f"no {kind} at {path}; {hint}")
    state, metadata = read_safetensors(path)
    try:
        config: dict[str, Any] = json.loads(metadata[f"ppl_{kind.replace(' ', '_')}"])
    except (KeyError, ValueError) as error:
        raise PPLValueError(f"{path} holds no {kind} ({error}); {hint}") from error
    own = config.pop("backbone")
    if backbone is None and own is None:
        raise PPLValueError(f"{path} holds a network on a backbone of your own: pass it as backbone=...")
    network = build(own if backbone is None else backbone, **config)
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        raise PPLValueError(f"{path} does not fit the backbone {type(network.backbone).__name__}: {reason}") from error
    return network.eval()
