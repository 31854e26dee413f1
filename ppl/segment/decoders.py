"""The decoders by name."""

from __future__ import annotations

from ppl.registry import Registry

__all__ = ["DECODERS", "DILATED"]

DECODERS: Registry[str] = Registry("decoder")
"""Names of decoders and of their classes in `segmentation_models_pytorch`."""

for _name in ("DeepLabV3Plus", "DeepLabV3", "FPN", "UPerNet", "Segformer", "Unet", "DPT"):
    DECODERS.register(_name.lower(), _name)

DILATED = {"deeplabv3plus": 16, "deeplabv3": 16}
"""Decoders that need a dilated encoder, and their usual output stride."""
