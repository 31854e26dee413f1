"""The table of families: one entry per file of timm whose models are not ordinary chains of stages."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import Any

from torch import nn

from ppl.backbones.families.absolute import added_grids, fourier_grids
from ppl.backbones.families.family import Family, Refusal
from ppl.backbones.families.orders import cut_hiera, cut_pixels_and_patches, hiera_order, last_of_list, last_of_states
from ppl.backbones.families.relative import cropped_biases, cropped_tables
from ppl.backbones.families.rotary import rotary_positions
from ppl.backbones.families.sizes import (
    any_image_size,
    dynamic_windows,
    free_patch_embeds,
    measured_patch_embeds,
    proportional_fusion,
)
from ppl.backbones.timm_support import require, timm_module

__all__ = ["check_attributes", "family_of", "hidden_family"]


def family_of(model: nn.Module) -> Family:
    """Return the family of a timm model or of a subclass; other models are ordinary chains of stages."""
    module = timm_module(model)
    if module == "byobnet":
        return _byobnet(model)
    if module == "maxxvit":
        return _maxxvit(model)
    return _FAMILIES.get(module, _ORDINARY)


def check_attributes(model: nn.Module, family: Family) -> None:
    """Raise UnsupportedBackboneError if no module of the model has an attribute that its family relies on."""
    for attribute in family.relies_on:
        if not any(hasattr(module, attribute) for module in model.modules()):
            require(model, attribute, model)


def hidden_family(model: nn.Module) -> str:
    """Return the name of a module that is a timm model of a special family inside another model, or an empty string.

    The outer model would be cut as an ordinary one: tokens or positions would be cut wrongly, without an error.
    """
    for name, module in model.named_modules():
        if name and hasattr(module, "feature_info"):
            family = family_of(module)
            if family.positions or family.cut or family.window or family.refuse:
                return str(name)
    return ""


_ORDINARY = Family()


def _always(reason: str, instead: str) -> Callable[[nn.Module], Refusal]:
    """Refuse every model of the family."""

    def refuse(model: nn.Module) -> Refusal:
        return Refusal(reason, instead)

    return refuse


def _last_of(container: str) -> Any:
    """Replace the names of `feature_info` by the last block of each list in the container."""

    def repair(model: nn.Module, names: list[str]) -> list[str]:
        stages: Any = model.get_submodule(container.partition("{")[0].rstrip("."))
        return [
            f"{container.format(index)}.{len(model.get_submodule(container.format(index))) - 1}"  # type: ignore[arg-type]
            for index in range(len(stages))
        ]

    return repair


def _coat_stages(model: nn.Module, names: list[str]) -> list[str]:
    found = []
    for index in range(1, 5):
        blocks: Any = getattr(model, f"serial_blocks{index}", None)
        if blocks is not None and len(blocks):
            found.append(f"serial_blocks{index}.{len(blocks) - 1}")
    return found


def _coat_only(model: nn.Module, names: list[str]) -> tuple[list[str], str]:
    if getattr(model, "parallel_blocks", None) is None:
        return names, ""
    return names[:1], "the parallel blocks mix all scales, so all of them must come from the patches"


def _renamed(pattern: str, shift: int = 0) -> Any:
    """Replace names inside a block by the block itself, or by the block `shift` blocks away."""

    def repair(model: nn.Module, names: list[str]) -> list[str]:
        repaired = []
        for name in names:
            match = re.match(pattern, name)
            repaired.append(f"{match.group(1)}{int(match.group(2)) + shift}" if match else name)
        return repaired

    return repair


def _hrnet_stages(model: nn.Module, names: list[str]) -> list[str]:
    return [{"stem": "act2", "stage1": "layer1"}.get(name, name) for name in names]


def _first_cell(model: nn.Module, names: list[str]) -> tuple[list[str], str]:
    return names[:1], "each cell takes the output of the cell before its predecessor too, which would cross the cut"


def _largest(model: nn.Module, *, kind: str, attribute: str) -> int:
    """Return the cells along one axis of the largest window of the modules of a kind."""
    sizes = [require(module, attribute, model) for module in model.modules() if type(module).__name__ == kind]
    return max(max(size) if isinstance(size, tuple) else int(size) for size in sizes)


def _byobnet(model: nn.Module) -> Family:
    kinds = {type(module).__name__ for module in model.modules()}
    if "BatNonLocalAttn" in kinds:
        return Family(refuse=_always("its bilinear attention divides every map into 7x7 blocks", "seresnet33ts"))
    if "HaloAttn" in kinds and kinds & {"BottleneckAttn", "LambdaLayer"}:
        return Family(refuse=_always("it joins halo windows with positions of one map size", "halonet26t"))
    if "HaloAttn" in kinds:
        return Family(window=partial(_largest, kind="HaloAttn", attribute="block_size"))
    if "MobileVitV2Block" in kinds:  # it enlarges maps that its small patches do not divide
        return Family(window=partial(_largest, kind="MobileVitV2Block", attribute="patch_size"))
    if "PosEmbedRel" in kinds:
        return Family(positions=cropped_tables)
    return _ORDINARY


def _maxxvit(model: nn.Module) -> Family:
    kinds = ("PartitionAttentionCl", "ParallelPartitionAttention", "PartitionAttention2d")
    found = [module for module in model.modules() if type(module).__name__ in kinds]
    partitions = [int(require(module, "partition_size", model)[0]) for module in found]
    if partitions:
        return Family(window=lambda m: max(partitions))
    return Family(positions=cropped_biases)


def _hiera_refusal(model: nn.Module) -> Refusal | None:
    stages: Any = model.stage_ends
    if model.q_pool == len(stages) - 1:
        return None
    return Refusal("its last stages keep tokens in the order of mask units", "hiera_tiny_224 or sam2_hiera_tiny")


_MIXER = _always(
    "its layers mix all tokens by a matrix of fixed size, so no part of an image can be processed alone",
    "poolformer_s12 or convmixer_768_32",
)

_SWIN = ("strict_img_size", "dynamic_mask")

_FAMILIES = {
    "beit": Family(positions=cropped_biases, relies_on=("_get_rel_pos_bias",)),
    "coat": Family(
        repair=_coat_stages,
        only=_coat_only,
        prepare=measured_patch_embeds,
        relies_on=("strict_img_size",),
        sized_dummy=True,
        batched_dummy=True,
        final=last_of_list,
    ),
    "crossvit": Family(
        refuse=_always(
            "it runs two token grids of different sizes that meet only in their class tokens", "deit_tiny_patch16_224"
        )
    ),
    "deit": Family(prepare=any_image_size),
    "edgenext": Family(positions=fourier_grids),
    "efficientformer": Family(positions=cropped_biases, relies_on=("get_attention_biases",)),
    "efficientformer_v2": Family(
        refuse=_always(
            "its attention reshapes every map to the one size it was built for", "efficientformer_l1 or fastvit_t8"
        )
    ),
    "efficientvim": Family(final=last_of_states),
    "eva": Family(prepare=any_image_size, positions=rotary_positions),
    "gcvit": Family(
        refuse=_always(
            "its global queries are pooled to exactly one window from the one map size it was built for",
            "swin_tiny_patch4_window7_224",
        )
    ),
    "hiera": Family(order=hiera_order, cut=cut_hiera, refuse=_hiera_refusal),
    "hrnet": Family(repair=_hrnet_stages),
    "levit": Family(positions=cropped_biases, relies_on=("get_attention_biases",)),
    "mlp_mixer": Family(refuse=_MIXER),
    "mobilenetv5": Family(prepare=proportional_fusion),
    "mvitv2": Family(
        repair=_last_of("stages.{}.blocks"), positions=cropped_tables, sized_dummy=True, relies_on=("rel_pos_type",)
    ),
    "nasnet": Family(only=_first_cell),
    "nest": Family(
        refuse=_always(
            "its blocks divide every map into a number of squares that is fixed for each stage",
            "swin_tiny_patch4_window7_224",
        )
    ),
    "pit": Family(from_last_stage=True),
    "pnasnet": Family(only=_first_cell),
    "swin_transformer": Family(prepare=dynamic_windows, relies_on=_SWIN),
    "swin_transformer_v2": Family(prepare=dynamic_windows, relies_on=_SWIN),
    "swin_transformer_v2_cr": Family(prepare=dynamic_windows, relies_on=_SWIN),
    "tnt": Family(cut=cut_pixels_and_patches),
    "twins": Family(repair=_last_of("blocks.{}"), sized_dummy=True, batched_dummy=True),
    "visformer": Family(prepare=free_patch_embeds, positions=added_grids, relies_on=("strict_img_size",)),
    "vision_transformer": Family(prepare=any_image_size),
    "vision_transformer_relpos": Family(positions=cropped_biases, relies_on=("get_bias",)),
    "vision_transformer_sam": Family(positions=cropped_tables, relies_on=("window_size", "use_rel_pos")),
    "volo": Family(positions=added_grids),
    "xception": Family(repair=_renamed(r"(block)(\d+)\.", shift=-1)),
    "xception_aligned": Family(repair=_renamed(r"(blocks\.)(\d+)\.")),
    "xcit": Family(sized_dummy=True),
}
