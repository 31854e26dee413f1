"""Switches that let a model of a fixed image size take maps of any size; at its own size nothing changes."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from ppl.backbones.data_config import data_config

__all__ = [
    "any_image_size",
    "dynamic_windows",
    "free_patch_embeds",
    "measured_patch_embeds",
    "proportional_fusion",
]


def any_image_size(model: nn.Module) -> None:
    """Let a ViT resample its position embedding to the image at hand (timm's `dynamic_img_size`)."""
    embed = getattr(model, "patch_embed", None)
    if not hasattr(embed, "strict_img_size"):
        return
    if getattr(model, "dynamic_img_size", None) is True:  # lacks only sizes that the patch size does not divide
        embed.dynamic_img_pad = True  # type: ignore[union-attr]
    if getattr(model, "dynamic_img_size", None) is not False:
        return
    if getattr(embed, "backbone", None) is not None:  # hybrid stems measure the image once and for all
        return
    from timm.layers import Format

    target: Any = model
    target.dynamic_img_size = True
    if getattr(getattr(model, "rope", None), "_use_cached_embed", False):
        target.rope._use_cached_embed = False  # compute the angles of the map at hand
    embed.strict_img_size = False  # type: ignore[union-attr]
    embed.dynamic_img_pad = True  # type: ignore[union-attr]
    embed.flatten = False  # type: ignore[union-attr]
    embed.output_fmt = Format.NHWC  # type: ignore[union-attr]


def dynamic_windows(model: nn.Module) -> None:
    """Let a Swin compute its attention masks from the map at hand.

    The stored masks count the windows of the native map. Patches have fewer windows but are more, so their number still
    fits and the masks would be dealt out to the wrong windows without any error.
    """
    free_patch_embeds(model)
    for module in model.modules():
        if hasattr(module, "dynamic_mask"):
            target: Any = module
            target.dynamic_mask = True


def free_patch_embeds(model: nn.Module) -> None:
    """Take the check of the image size off every patch embedding."""
    for module in model.modules():
        if hasattr(module, "strict_img_size"):
            target: Any = module
            target.strict_img_size = False


class MeasureGrid:
    """Hook that sets a patch embedding's `grid_size` from the map it is given."""

    def __call__(self, module: Any, args: tuple[Tensor, ...]) -> None:
        """Measure the input."""
        height, width = args[0].shape[-2:]
        module.grid_size = (height // module.patch_size[0], width // module.patch_size[1])


def measured_patch_embeds(model: nn.Module) -> None:
    """Take the check off, and let the embeddings measure their input: later layers read the grid from them."""
    free_patch_embeds(model)
    for module in model.modules():
        hooked = any(isinstance(hook, MeasureGrid) for hook in module._forward_pre_hooks.values())
        if hasattr(module, "strict_img_size") and not hooked:
            module.register_forward_pre_hook(MeasureGrid())


class ScaleFusion:
    """Hook that lets MobileNetV5's fusion of scales return a map so many times coarser than its finest input."""

    def __init__(self, factor: int) -> None:
        self.factor = factor

    def __call__(self, module: Any, args: tuple[list[Tensor]]) -> None:
        """Measure the input."""
        height, width = args[0][0].shape[-2:]
        module.output_resolution = (-(-height // self.factor), -(-width // self.factor))


def proportional_fusion(model: nn.Module) -> None:
    """MobileNetV5 resizes every final map to one size; let the size follow the image's, as at the model's own size."""
    fusion: Any = getattr(model, "msfa", None)
    if fusion is None or any(isinstance(hook, ScaleFusion) for hook in fusion._forward_pre_hooks.values()):
        return
    target: Any = model
    finest = target.feature_info[target.msfa_indices[0]]["reduction"]
    native = data_config(model)["input_size"][1]
    fusion.register_forward_pre_hook(ScaleFusion(max(1, native // (finest * fusion.output_resolution[0]))))
