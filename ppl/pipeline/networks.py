"""Networks from their files: classifiers and segmentation networks."""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError, safe_open

from ppl.models import PPLNet, load_model
from ppl.pipeline.run_folder import RunFolder
from ppl.segment import Segmenter, load

__all__ = ["load_network", "network_file"]


def network_file(path: str | Path) -> Path:
    """Return the file of a network: of a run folder, that of its segmentation network.

    Example:
        >>> network_file("runs/photos/last.safetensors").as_posix()
        'runs/photos/last.safetensors'
    """
    path = Path(path)
    return RunFolder(path).segmenter if path.is_dir() else path


def load_network(path: str | Path) -> PPLNet | Segmenter:
    """Return the network that a file of :func:`ppl.save_model` or :func:`ppl.segment.save_segmenter` holds.

    Args:
        path: the file, or a run folder, whose segmentation network is meant.

    Raises:
        PPLFileNotFoundError: if there is no such file.
        PPLValueError: if the file holds neither.
    """
    path = network_file(path)
    try:
        with safe_open(path, framework="pt") as file:
            is_classifier = "ppl" in (file.metadata() or {})
    except (SafetensorError, OSError):
        is_classifier = False
    return load_model(path).eval() if is_classifier else load(path)
