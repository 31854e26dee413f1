"""Keep the shallow stages of a backbone as they are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import nn
from torch.overrides import TorchFunctionMode

from ppl.backbones.stages import find_stage
from ppl.backbones.state import make_dummy, untouched
from ppl.backbones.trace import call_backbone, tensors_of, trace_model

__all__ = ["freeze_stages"]


def freeze_stages(model: nn.Module, last: str | int, stages: Sequence[str] | None = None) -> tuple[nn.Module, ...]:
    """Take all parameters up to a stage, itself included, out of training.

    The field's pipelines do so with the stem and the first blocks (IRN, SEAM). No gradient is computed there any more,
    which for a typical network halves the time of a training step. Of the parameters that the backbone itself owns,
    such as class tokens and position embeddings, those that have entered by then are frozen too.

    Args:
        model: the backbone.
        last: the last stage that keeps its weights, by name or index, or the name of a block; not the final one.
        stages: names of the backbone's stages, if it does not name them itself.

    Returns:
        The modules that have done their work by then. The statistics of BatchNorm layers among them follow the data in
        train mode; `norm.eval()` keeps them.

    Raises:
        PPLValueError: if there is no such stage; the message lists the valid ones.

    Example:
        >>> import timm
        >>> model = timm.create_model("test_resnet", num_classes=0)
        >>> frozen = freeze_stages(model, "layer2")
        >>> model.layer1[0].conv1.weight.requires_grad, model.layer3[0].conv1.weight.requires_grad
        (False, True)
    """
    trace = trace_model(model, stages, blocks=[last] if isinstance(last, str) else [])
    index = find_stage(trace.stages, last)
    finished = tuple(model.get_submodule(name) for name in trace.prefixes[index])
    entered = _entered(model, trace.stages[index].module, trace.probe)
    inside = [parameter for module in finished for parameter in module.parameters(recurse=False)]
    for parameter in (*inside, *entered):
        parameter.requires_grad_(False)
    return finished


def _entered(model: nn.Module, end: str, size: tuple[int, int]) -> list[nn.Parameter]:
    """The backbone's own parameters that take part in a pass before the module `end` returns."""
    operands = _Operands()
    entered: set[int] = set()
    handle = model.get_submodule(end).register_forward_hook(lambda *_: entered.update(operands.found))
    try:
        image = make_dummy(model, size)  # asks parameters for their type
        with untouched(model), operands:
            call_backbone(model, image)
    finally:
        handle.remove()
    return [parameter for parameter in model.parameters(recurse=False) if id(parameter) in entered]


class _Operands(TorchFunctionMode):
    """Notes which tensors take part in any operation."""

    def __init__(self) -> None:
        super().__init__()
        self.found: set[int] = set()

    def __torch_function__(
        self, func: Callable[..., Any], types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Note what an operation is given."""
        kwargs = kwargs or {}
        self.found.update(id(tensor) for tensor in tensors_of((*args, *kwargs.values())))
        return func(*args, **kwargs)
