"""Keep the shallow stages of a backbone as they are."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from ppl.backbones.stages import find_stage
from ppl.backbones.trace import trace_model

__all__ = ["freeze_stages"]


def freeze_stages(model: nn.Module, last: str | int, stages: Sequence[str] | None = None) -> None:
    """Take all parameters up to a stage, itself included, out of training.

    The field's pipelines do so with the stem and the first blocks (IRN, SEAM). No gradient is computed there any more,
    which for a typical network halves the time of a training step. Parameters that the backbone itself owns, such as
    class tokens and position embeddings, enter before the first stage and are frozen too.

    Args:
        model: the backbone.
        last: the last stage that keeps its weights, by name or index, or the name of a block; not the final one.
        stages: names of the backbone's stages, if it does not name them itself.

    Raises:
        PPLValueError: if there is no such stage; the message lists the valid ones.

    Example:
        >>> import timm
        >>> model = timm.create_model("test_resnet", num_classes=0)
        >>> freeze_stages(model, "layer2")
        >>> model.layer1[0].conv1.weight.requires_grad, model.layer3[0].conv1.weight.requires_grad
        (False, True)
    """
    trace = trace_model(model, stages, blocks=[last] if isinstance(last, str) else [])
    finished = {"", *trace.prefixes[find_stage(trace.stages, last)]}
    for name, parameter in model.named_parameters():
        if name.rpartition(".")[0] in finished:
            parameter.requires_grad_(False)
