"""Build a `PPLNet` from the name of a timm backbone."""

from __future__ import annotations

import operator
import os
from collections.abc import Sequence
from typing import Any, SupportsIndex

from torch import nn

from ppl.backbones.names import check_timm_name
from ppl.errors import PPLError, PPLTypeError, PPLValueError
from ppl.layers.grid import Grid
from ppl.models.config import ModelConfig
from ppl.models.ppl_net import PPLNet
from ppl.models.weights import load_backbone_weights

__all__ = ["create_model", "make_backbone", "number_and_names"]

_DEFAULTS = ModelConfig()


def create_model(
    backbone: str = _DEFAULTS.backbone,
    num_classes: int | list[str] | tuple[str, ...] = 20,
    *,
    mode: str = _DEFAULTS.mode,
    cuts: Sequence[str | int] | None = _DEFAULTS.cuts,
    grids: Grid | Sequence[Grid] = _DEFAULTS.grids,
    padding: str = _DEFAULTS.padding,
    halo: int = _DEFAULTS.halo,
    pooling: str = _DEFAULTS.pooling,
    pretrained: bool = _DEFAULTS.pretrained,
    checkpoint_path: str | os.PathLike[str] | None = _DEFAULTS.checkpoint_path,
    output_stride: int | None = _DEFAULTS.output_stride,
    **timm_kwargs: Any,
) -> PPLNet:
    """Build a patch-learning classifier on a timm backbone.

    Args:
        backbone: name of a timm model; `ppl.check_backbone` tells whether a model can be cut.
        num_classes: K, the number of classes, or their names, which become `model.classes`.
        mode: "baseline", "control", "progressive" or "explicit"; see :class:`ppl.PPLNet`.
        cuts: stages or blocks after which the feature map is cut; None: the last three stages before the final one.
        grids: rows and columns of patches: an integer or a pair for all cuts, or a list with one entry per cut.
        padding: values that convolutions after a cut see beyond a patch: "zeros", "replicate" or "reflect".
        halo: cells of real context that each patch keeps on every side.
        pooling: from class maps to logits: "average", "max", "generalised_mean:POWER", "log_sum_exp:SHARPNESS" or
            "ngwp:POWER".
        pretrained: start from timm's weights, which timm downloads if they are not in its cache.
        checkpoint_path: weights of the backbone with timm's keys, in a safetensors file or a file that
            `torch.load(weights_only=True)` accepts; nothing is downloaded then. Weights of a classifier are ignored.
        output_stride: stride of the final map (8, 16 or 32), for the families in which timm can lower it.
        **timm_kwargs: further arguments of `timm.create_model`, such as `drop_path_rate`.

    Returns:
        The model, in training mode, in its last phase.

    Raises:
        PPLValueError: unknown backbone, mode or cut; an argument or output stride that the family does not accept;
            weights of another model.
        PPLFileNotFoundError: if `checkpoint_path` does not exist.
        PPLError: if the pretrained weights are not available.

    Example:
        >>> import torch
        >>> model = create_model("test_resnet", 20, cuts=["layer2", "layer3"], pretrained=False)
        >>> model(torch.zeros(1, 3, 64, 64)).shape
        torch.Size([1, 20])
    """
    num_classes, classes = number_and_names(num_classes)
    source = {"backbone": backbone, "output_stride": output_stride, "timm_kwargs": timm_kwargs}
    network = make_backbone(source, pretrained=pretrained and checkpoint_path is None)
    if checkpoint_path is not None:
        load_backbone_weights(network, checkpoint_path)
    model = PPLNet(network, num_classes, mode=mode, cuts=cuts, grids=grids, padding=padding, halo=halo, pooling=pooling)
    model.classes = classes
    if output_stride is not None and model.stride != output_stride:
        raise PPLValueError(_no_output_stride(backbone, output_stride, f"its stride stays {model.stride}"))
    model.source = source
    return model


def number_and_names(classes: int | Sequence[str]) -> tuple[int, tuple[str, ...] | None]:
    """Return the number of classes and their names, None if the number is given alone.

    Raises:
        PPLTypeError: if `classes` is neither a number nor a list of names.
        PPLValueError: if a name comes twice.

    Example:
        >>> number_and_names(["cat", "dog"]), number_and_names(3)
        ((2, ('cat', 'dog')), (3, None))
    """
    if isinstance(classes, (list, tuple)):
        names = tuple(str(name) for name in classes)
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise PPLValueError(f"num_classes names {twice!r} twice; name every class once")
        return len(names), names
    if not isinstance(classes, SupportsIndex):
        raise PPLTypeError(f"num_classes must be a whole number or a list of names, got {classes!r}")
    return operator.index(classes), None


def make_backbone(source: dict[str, Any], *, pretrained: bool) -> nn.Module:
    """Build the timm model, without a classifier, that a `PPLNet.source` describes.

    Args:
        source: "backbone", "output_stride" and "timm_kwargs", as :func:`create_model` got them.
        pretrained: load timm's weights.

    Returns:
        The backbone.
    """
    import timm

    name, output_stride = source["backbone"], source["output_stride"]
    check_timm_name(name)
    options = {"num_classes": 0, **source["timm_kwargs"]}
    if output_stride is not None:
        options["output_stride"] = output_stride
    try:
        network: nn.Module = timm.create_model(name, pretrained=pretrained, **options)
    except Exception as error:  # Families and download clients raise errors of many types.
        reason = f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else 'no reason'}"
        if pretrained:
            make_backbone(source, pretrained=False)  # raises if the arguments are wrong
            raise PPLError(
                f"timm's pretrained weights of {name!r} are not available ({reason}): "
                "give a file of them (checkpoint_path=..., --weights FILE) or start from scratch (pretrained=False, "
                "--set model.pretrained=false)"
            ) from error
        if output_stride is not None:
            raise PPLValueError(_no_output_stride(name, output_stride, reason)) from error
        raise PPLValueError(f"timm cannot create {name!r} with {source['timm_kwargs']}: {reason}") from error
    return network


def _no_output_stride(name: str, output_stride: int, reason: str) -> str:
    """Return the message for a family whose stride cannot be changed."""
    from timm.models import get_arch_name, model_entrypoint

    family = model_entrypoint(get_arch_name(name)).__module__.rpartition(".")[2]
    return f"family {family!r} of {name!r} cannot have output_stride={output_stride} ({reason}): leave it out"
