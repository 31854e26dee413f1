"""Save and load models: weights as safetensors, everything else as JSON in the header. Nothing is unpickled."""

from __future__ import annotations

import json
import os
from typing import Any

from safetensors.torch import save
from torch import nn

from ppl.backbones.eval_mode import forget_biases
from ppl.errors import PPLTypeError, PPLValueError
from ppl.io.files import atomic_write
from ppl.models.create_model import make_backbone
from ppl.models.hub import set_file_format
from ppl.models.ppl_net import PPLNet
from ppl.models.weights import check_state, read_safetensors

__all__ = ["header_text", "load_model", "save_model"]

_HEADER = "ppl"


def save_model(model: PPLNet, path: str | os.PathLike[str]) -> None:
    """Write a model to a safetensors file that :func:`load_model` reads.

    Args:
        model: the model; the file also holds its `config`, `phase` and `classes`.
        path: the file, which is written whole or not at all.

    Raises:
        PPLTypeError: if `model` is no PPLNet, or was created with arguments that JSON cannot represent.
        FileWriteError: if the disk is full or the folder cannot be written to.

    Example:
        >>> import tempfile
        >>> from ppl.models import create_model
        >>> model = create_model("test_resnet", 3, cuts=["layer2"], pretrained=False)
        >>> model.classes = ("cat", "cow", "dog")
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_model(model, f"{folder}/model.safetensors")
        ...     load_model(f"{folder}/model.safetensors").classes
        ('cat', 'cow', 'dog')
    """
    if not isinstance(model, PPLNet):
        raise PPLTypeError(f"model must be a PPLNet, got {type(model).__name__}: unwrap it first (`.module`)")
    text = header_text(model)
    # Clone: safetensors refuses tensors that share memory.
    state = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in model.state_dict().items()}
    with atomic_write(path) as handle:
        handle.write(save(state, metadata={_HEADER: text}))


def load_model(path: str | os.PathLike[str], *, backbone: nn.Module | None = None) -> PPLNet:
    """Build the model that :func:`save_model` wrote, with its weights, phase and classes.

    Args:
        path: the file.
        backbone: the module that gets the weights, needed only if the model was built on a module of your own.

    Returns:
        The model, on the CPU and in training mode, as after `create_model`.

    Raises:
        PPLFileNotFoundError: if there is no such file.
        PPLValueError: if the file has another format, or weights of another backbone; the message names the first keys
            or shapes that differ.
    """
    state, metadata = read_safetensors(path)
    header = _read_header(metadata, path)
    config = dict(header["config"])
    source = config.pop("source")
    if backbone is None:
        if source is None:
            raise PPLValueError(
                f"{os.fspath(path)} holds a model built on a module of your own: "
                "make that module and pass load_model(path, backbone=...)"
            )
        backbone = make_backbone(source, pretrained=False)
    model = PPLNet(backbone, **config)
    model.source = source
    check_state(state, model.state_dict(), os.fspath(path))
    model.load_state_dict(state)
    forget_biases(model.modules())
    model.set_phase(header["phase"])
    model.classes = None if header["classes"] is None else tuple(header["classes"])
    return model


def header_text(model: PPLNet) -> str:
    """Return the header of a model's file, everything except the weights, as JSON.

    Raises:
        PPLTypeError: if the model was created with arguments that JSON cannot represent.
    """
    header = {
        "config": model.config,
        "phase": model.phase,
        "classes": None if model.classes is None else list(model.classes),
    }
    try:
        return json.dumps(header)
    except (TypeError, ValueError) as error:
        raise PPLTypeError(
            f"the model was created with an argument that JSON cannot represent ({error}) and cannot be saved: "
            "give numbers and names, such as act_layer='gelu'"
        ) from error


def _read_header(metadata: dict[str, str], path: str | os.PathLike[str]) -> dict[str, Any]:
    try:
        header = json.loads(metadata[_HEADER])
        return {"config": header["config"], "phase": header["phase"], "classes": header["classes"]}
    except (KeyError, TypeError, ValueError) as error:
        raise PPLValueError(
            f"{os.fspath(path)} was not written by ppl.save_model (its header lacks a model): weights of a bare "
            "backbone go to create_model(checkpoint_path=...)"
        ) from error


set_file_format(PPLNet, save_model, load_model)
