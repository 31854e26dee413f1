"""The file of a network on a frozen backbone: its weights, and the arguments that build it again."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ppl.errors import PPLFileNotFoundError, PPLValueError
from ppl.io import atomic_write
from ppl.io.fingerprint import sha256
from ppl.models.weights import read_safetensors
from ppl.refine.frozen_backbone import FrozenBackbone

__all__ = ["LoadedNetwork", "NetworkKind", "load_network", "write_network"]

_NETWORKS_IN_MEMORY = 4


@dataclass(frozen=True)
class NetworkKind:
    """A kind of network on a frozen backbone.

    Args:
        name: name of the kind, such as "affinity network"; a file keeps the arguments of its network under this name.
        build: the class of the network.
        predict: function from a network and an image `(H, W, 3)` to the result.
        loader: name of the public function that loads such files, for records of finished work.
        hint: how such a file is made, for errors.
    """

    name: str
    build: Callable[..., FrozenBackbone]
    predict: Callable[[Any, Any], Any]
    loader: str
    hint: str

    @property
    def key(self) -> str:
        """The key of the arguments in the metadata of a file."""
        return f"ppl_{self.name.replace(' ', '_')}"


@dataclass(frozen=True, repr=False)
class LoadedNetwork:
    """A network of a file as a function of images, which several threads may call at the same time."""

    kind: NetworkKind
    network: FrozenBackbone
    path: Path
    sha256: str

    def __repr__(self) -> str:
        """Return the file's name and the hash of its content, which records of finished work keep."""
        return f"{self.kind.loader}({self.path.name!r}, sha256={self.sha256!r})"

    def __call__(self, image: Any) -> Any:
        """Return the result of the network for an image `(H, W, 3)`, uint8 or in [0, 1]."""
        return self.kind.predict(self.network, image)


def write_network(network: FrozenBackbone, path: str | os.PathLike[str], kind: NetworkKind) -> None:
    """Write a network with its backbone as safetensors, whole or not at all."""
    from safetensors.torch import save

    state = {name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()}
    with atomic_write(path) as handle:
        handle.write(save(state, metadata={kind.key: json.dumps(network.config)}))


def load_network(
    path: str | os.PathLike[str],
    kind: NetworkKind,
    *,
    backbone: nn.Module | None = None,
    device: str | torch.device | None = None,
) -> LoadedNetwork:
    """Load a network that `write_network` wrote; an unchanged file of a timm model is read once.

    Args:
        path: the file.
        kind: the kind of the network.
        backbone: a module of the same architecture, for a network whose backbone is not a timm model.
        device: device of the network; None: the GPU if there is one, else the CPU.

    Raises:
        PPLFileNotFoundError: if the file is missing.
        PPLValueError: if the file holds no network of this kind, or `backbone` is needed to build it.
    """
    file, place = Path(path).resolve(), str(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    if backbone is not None:
        return _load(file, kind, backbone, place)
    return _load_once(file, file.stat().st_mtime_ns if file.is_file() else 0, kind, place)


@lru_cache(maxsize=_NETWORKS_IN_MEMORY)
def _load_once(path: Path, _changed: int, kind: NetworkKind, device: str) -> LoadedNetwork:
    return _load(path, kind, None, device)


def _load(path: Path, kind: NetworkKind, backbone: nn.Module | None, device: str) -> LoadedNetwork:
    return LoadedNetwork(kind, _read(path, kind, backbone).to(device), path, sha256(path))


def _read(path: Path, kind: NetworkKind, backbone: nn.Module | None) -> FrozenBackbone:
    if not path.is_file():
        raise PPLFileNotFoundError(f"no {kind.name} at {path}; {kind.hint}")
    state, metadata = read_safetensors(path)
    try:
        config: dict[str, Any] = json.loads(metadata[kind.key])
    except (KeyError, ValueError) as error:
        raise PPLValueError(f"{path} holds no {kind.name} ({error}); {kind.hint}") from error
    own = config.pop("backbone")
    if backbone is None and own is None:
        raise PPLValueError(
            f"{path} holds a network on a backbone of your own: pass it as {kind.loader}({path.name!r}, backbone=...)"
        )
    network = kind.build(own if backbone is None else backbone, **config)
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        raise PPLValueError(f"{path} does not fit the backbone {type(network.backbone).__name__}: {reason}") from error
    return network.eval()
