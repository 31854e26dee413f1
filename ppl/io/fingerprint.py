"""Short hashes that tell whether settings, files or weights are the same as before."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ppl.io.archives import open_binary

if TYPE_CHECKING:
    import torch

__all__ = ["fingerprint", "fingerprint_weights", "sha256", "source_hash"]


def fingerprint(content: Any) -> str:
    """Hash content that `json` can write; other objects count by their text, and the order of keys does not count.

    Args:
        content: numbers, texts, lists, mappings and paths.

    Returns:
        16 hexadecimal digits.

    Example:
        >>> fingerprint({"flip": True, "scales": [1.0]}) == fingerprint({"scales": [1.0], "flip": True})
        True
        >>> len(fingerprint([]))
        16
    """
    text = json.dumps(content, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def fingerprint_weights(weights: Mapping[str, torch.Tensor]) -> str:
    """Hash the names, shapes, dtypes and values of a state dictionary.

    Args:
        weights: tensor by name, of any device and memory layout.

    Returns:
        16 hexadecimal digits.

    Example:
        >>> import torch
        >>> fingerprint_weights({"a": torch.zeros(2)}) == fingerprint_weights({"a": torch.zeros(2)})
        True
    """
    import torch

    digest = hashlib.sha256()
    for name, value in weights.items():
        digest.update(f"{name} {tuple(value.shape)} {value.dtype}".encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()[:16]


def sha256(path: str | os.PathLike[str]) -> str:
    """Return the SHA-256 of a file's content, in 64 hexadecimal digits.

    Example:
        >>> sha256(os.devnull)[:8]
        'e3b0c442'
    """
    digest = hashlib.sha256()
    with open_binary(path) as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def source_hash(part: Any) -> str | None:
    """Return the SHA-256 of the file that defines a part, or None for the parts of `ppl` and for built-in parts.

    Results of a part from outside the package belong to this hash, so that an edited module is noticed.

    Example:
        >>> source_hash(source_hash) is None
        True
    """
    module = sys.modules.get(getattr(part, "__module__", None) or "")
    file = getattr(module, "__file__", None)
    if module is None or file is None or module.__name__.partition(".")[0] == "ppl":
        return None
    return sha256(file) if os.path.isfile(file) else None
