"""The modules that end the stages of a model."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from torch import nn

from ppl.backbones.families import family_of
from ppl.errors import PPLTypeError, PPLValueError

__all__ = ["check_timm_name", "last_leaf", "stage_names"]


def check_timm_name(name: str) -> None:
    """Raise PPLValueError if timm has no model of that name; the message offers the nearest names.

    Example:
        >>> check_timm_name("resnet50")
    """
    import timm

    if ":" not in name and not timm.is_model(name):  # Names with a colon are looked up on a hub later.
        near = difflib.get_close_matches(name, timm.list_models(), n=3, cutoff=0.5)
        raise PPLValueError(f"timm has no model {name!r}" + (f": did you mean {', '.join(near)}?" if near else ""))


def stage_names(model: nn.Module, stages: Sequence[str] | None) -> list[str]:
    """Return the names of the modules that end the stages: those given, or those of the model's `feature_info`.

    Args:
        model: the backbone.
        stages: dotted module names, or None.

    Returns:
        Dotted names of modules of the model.

    Raises:
        PPLValueError: if a name is no module of the model, or none is given and the model has no `feature_info`.
        PPLTypeError: if `stages` is a single string.
    """
    if isinstance(stages, str):
        raise PPLTypeError(f"stages must be a list of module names, got the string {stages!r}: write [{stages!r}]")
    modules = dict(model.named_modules())
    if stages is not None:
        for name in stages:
            if name not in modules or not name:
                near = difflib.get_close_matches(name, modules, n=3, cutoff=0.3)
                raise PPLValueError(
                    f"stage {name!r} is no module of {type(model).__name__}: near names are {', '.join(near) or 'none'}"
                )
        return list(stages)
    info = getattr(model, "feature_info", None)
    if not info:
        children = ", ".join(name for name, _ in model.named_children())
        raise PPLValueError(
            f"{type(model).__name__} does not name its stages (it has no feature_info): "
            f"name them with stages=[...]; its modules are {children}"
        )
    names = [entry["module"] for entry in info]
    repair = family_of(model).repair
    if repair is not None:
        names = repair(model, names)
    return [name for name in dict.fromkeys(names) if name and name in modules]


def last_leaf(model: nn.Module, name: str) -> str:
    """Return the last block in a stage's plain `Sequential`s, which gradient checkpointing does not bypass."""
    module = model.get_submodule(name)
    while isinstance(module, nn.Sequential) and type(module).forward is nn.Sequential.forward and len(module):
        last = list(module._modules)[-1]
        name = f"{name}.{last}"
        module = module[-1]
    return name
