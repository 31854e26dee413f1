"""Switches that let a model of a fixed image size take maps of any size; results at its own size stay the same."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from ppl.backbones.data_config import data_config
from ppl.backbones.timm_support import require

__all__ = [
    "SizeHook",
    "any_image_size",
    "dynamic_windows",
    "free_patch_embeds",
    "measured_patch_embeds",
    "proportional_fusion",
]


def _set(owner: Any, attribute: str, value: Any, model: nn.Module) -> None:
    """Set an attribute that must exist: a new one would change nothing."""
    require(owner, attribute, model)
    setattr(owner, attribute, value)


def any_image_size(model: nn.Module) -> None:
    """Let a ViT resample its position embedding to the image at hand (timm's `dynamic_img_size`)."""
    embed = getattr(model, "patch_embed", None)
    if not type(embed).__module__.startswith("timm."):
        return
    if require(model, "dynamic_img_size", model):
        _set(embed, "dynamic_img_pad", True, model)  # for sizes that the patch size does not divide
        return
    if getattr(embed, "backbone", None) is not None:  # Hybrid stems measure the image once and for all.
        return
    from timm.layers import Format

    rope = getattr(model, "rope", None)
    if type(rope).__name__ == "RotaryEmbeddingCat":
        _set(rope, "_use_cached_embed", False, model)  # Compute the angles of the map at hand.
    _set(model, "dynamic_img_size", True, model)
    switches = {"strict_img_size": False, "dynamic_img_pad": True, "flatten": False, "output_fmt": Format.NHWC}
    for attribute, value in switches.items():
        _set(embed, attribute, value, model)


def dynamic_windows(model: nn.Module) -> None:
    """Let a Swin compute its attention masks from the map at hand.

    The stored masks count the windows of the native map. Patches have fewer windows each but are more, so the masks
    would be applied to the wrong windows without an error.
    """
    free_patch_embeds(model)
    for module in model.modules():
        if hasattr(module, "dynamic_mask"):
            _set(module, "dynamic_mask", True, model)


def free_patch_embeds(model: nn.Module) -> None:
    """Switch off the check of the image size in every patch embedding."""
    for module in model.modules():
        if hasattr(module, "strict_img_size"):
            _set(module, "strict_img_size", False, model)


class SizeHook:
    """Forward pre-hook that sets an attribute of its module from the size of the input."""

    def __call__(self, module: Any, args: tuple[Any, ...]) -> None:
        """Set the attribute."""
        raise NotImplementedError


class MeasureGrid(SizeHook):
    """Set the `grid_size` of a patch embedding."""

    def __call__(self, module: Any, args: tuple[Tensor, ...]) -> None:
        """Divide the input's size by the patch size."""
        height, width = args[0].shape[-2:]
        module.grid_size = (height // module.patch_size[0], width // module.patch_size[1])


def measured_patch_embeds(model: nn.Module) -> None:
    """Let patch embeddings take any size and measure their input: later layers read the grid from the embeddings."""
    free_patch_embeds(model)
    for module in model.modules():
        hooked = any(isinstance(hook, MeasureGrid) for hook in module._forward_pre_hooks.values())
        if hasattr(module, "strict_img_size") and not hooked:
            require(module, "grid_size", model)
            module.register_forward_pre_hook(MeasureGrid())


class ScaleFusion(SizeHook):
    """Set the `output_resolution` of MobileNetV5's fusion of scales to a fraction of its finest input."""

    def __init__(self, factor: int) -> None:
        self.factor = factor

    def __call__(self, module: Any, args: tuple[list[Tensor]]) -> None:
        """Divide the size of the finest input by the factor."""
        height, width = args[0][0].shape[-2:]
        module.output_resolution = (-(-height // self.factor), -(-width // self.factor))


def proportional_fusion(model: nn.Module) -> None:
    """Let the size of MobileNetV5's final map follow the image's size instead of being fixed."""
    fusion: Any = require(model, "msfa", model)
    if any(isinstance(hook, ScaleFusion) for hook in fusion._forward_pre_hooks.values()):
        return
    target: Any = model
    finest = target.feature_info[require(model, "msfa_indices", model)[0]]["reduction"]
    native = data_config(model)["input_size"][1]
    resolution = require(fusion, "output_resolution", model)
    fusion.register_forward_pre_hook(ScaleFusion(max(1, native // (finest * resolution[0]))))
