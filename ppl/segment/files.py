"""Segmentation networks in files: safetensors for the weights, JSON in the header for everything else."""

from __future__ import annotations

import json
import os

from safetensors.torch import save

from ppl.errors import PPLTypeError, PPLValueError
from ppl.io import atomic_write
from ppl.models.hub import set_file_format
from ppl.models.weights import check_state, read_safetensors
from ppl.segment.segmenter import Segmenter, create_segmenter

__all__ = ["load", "save_segmenter"]

_HEADER = "ppl.segment"


def save_segmenter(model: Segmenter, path: str | os.PathLike[str]) -> None:
    """Write a segmentation network to a safetensors file, from which :func:`load` makes the network again.

    Args:
        model: the network; its `config` and `classes` go into the header of the file.
        path: the file, which appears whole or not at all.

    Raises:
        PPLTypeError: if the model was created with options that JSON cannot hold.
        FileWriteError: if the disk is full or the place cannot be written to.

    Example:
        >>> import tempfile
        >>> model = create_segmenter("test_resnet", 2, decoder="fpn", pretrained=False)
        >>> model.classes = ("cat", "dog")
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_segmenter(model, f"{folder}/segmenter.safetensors")
        ...     load(f"{folder}/segmenter.safetensors").classes
        ('cat', 'dog')
    """
    try:
        header = json.dumps({"config": model.config, "classes": model.classes})
    except (TypeError, ValueError) as error:
        raise PPLTypeError(f"the network was created with an option that JSON cannot hold: {error}") from error
    state = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in model.state_dict().items()}
    with atomic_write(path) as handle:
        handle.write(save(state, metadata={_HEADER: header}))


def load(path: str | os.PathLike[str]) -> Segmenter:
    """Make the segmentation network that a file holds. Nothing is unpickled.

    Args:
        path: a file of :func:`save_segmenter`, such as `segmenter/best.safetensors` of a run folder.

    Returns:
        The network, on the CPU, in eval mode.

    Raises:
        PPLFileNotFoundError: if there is no such file.
        PPLValueError: if the file holds no segmentation network, or its weights do not fit the network.
    """
    state, metadata = read_safetensors(path)
    try:
        header = json.loads(metadata[_HEADER])
        config, classes = dict(header["config"]), header["classes"]
    except (KeyError, TypeError, ValueError) as error:
        hint = ": it holds a classifier, which ppl.load_model reads" if "ppl" in metadata else ""
        raise PPLValueError(f"{os.fspath(path)} holds no segmentation network of ppl{hint}") from error
    options = config.pop("options")
    model = create_segmenter(**config, **options, pretrained=False)
    check_state(state, model.state_dict(), os.fspath(path))
    model.load_state_dict(state)
    model.classes = None if classes is None else tuple(classes)
    return model.eval()


set_file_format(Segmenter, save_segmenter, load)
