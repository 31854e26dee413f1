"""Normalisation and size of the images that a backbone expects."""

from __future__ import annotations

from typing import Any

from torch import nn

__all__ = ["data_config"]

_IMAGENET: dict[str, Any] = {
    "mean": (0.485, 0.456, 0.406),
    "std": (0.229, 0.224, 0.225),
    "input_size": (3, 224, 224),
    "interpolation": "bilinear",
}


def data_config(model: nn.Module) -> dict[str, Any]:
    """Return the normalisation and the input size of a model's training images.

    Args:
        model: a timm model, whose configuration is read, or any module, which gets ImageNet's defaults.

    Returns:
        "mean" and "std" (three floats each, for images in [0,1]), "input_size" (C,H,W) and "interpolation".

    Example:
        >>> import timm
        >>> data_config(timm.create_model("test_resnet", pretrained=False))["mean"]
        (0.5, 0.5, 0.5)
    """
    if not getattr(model, "pretrained_cfg", None):
        return dict(_IMAGENET)
    from timm.data import resolve_model_data_config

    config = resolve_model_data_config(model)
    return {key: config.get(key, default) for key, default in _IMAGENET.items()}
