"""Freeze the shallow stages of a backbone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import nn
from torch.overrides import TorchFunctionMode

from ppl.backbones.dry_run import inspect_backbone
from ppl.backbones.dummy import call_backbone, make_dummy, trial
from ppl.backbones.patches import tensors_of
from ppl.backbones.stages import find_stage

__all__ = ["freeze_stages"]


def freeze_stages(model: nn.Module, last: str | int, stages: Sequence[str] | None = None) -> tuple[nn.Module, ...]:
    """Stop the training of all parameters up to and including a stage.

    IRN and SEAM freeze the stem and the first blocks. Frozen layers need no gradient, which about halves the time of a
    training step. Parameters of the backbone itself (class tokens, position embeddings) are frozen if they are used
    before the stage ends.

    Args:
        model: the backbone.
        last: the last frozen stage, by name or index, or the name of a block; not the final stage.
        stages: names of the backbone's stages, if it has no `feature_info`.

    Returns:
        The modules that have run for the last time when the stage ends. BatchNorm layers among them still update their
        statistics in training mode; `norm.eval()` stops that.

    Raises:
        PPLValueError: if there is no such stage; the message lists the valid ones.

    Example:
        >>> import timm
        >>> model = timm.create_model("test_resnet", num_classes=0)
        >>> frozen = freeze_stages(model, "layer2")
        >>> model.layer1[0].conv1.weight.requires_grad, model.layer3[0].conv1.weight.requires_grad
        (False, True)
    """
    info = inspect_backbone(model, stages, blocks=[last] if isinstance(last, str) else [])
    index = find_stage(info.stages, last)
    finished = tuple(model.get_submodule(name) for name in sorted(info.prefixes[index]))
    entered = _entered(model, info.stages[index].module, info.probe)
    inside = [parameter for module in finished for parameter in module.parameters(recurse=False)]
    for parameter in (*inside, *entered):
        parameter.requires_grad_(False)
    return finished


def _entered(model: nn.Module, end: str, size: tuple[int, int]) -> list[nn.Parameter]:
    """Return the backbone's own parameters that take part in a pass before the module `end` returns."""
    operands = _Operands()
    entered: set[int] = set()
    with trial(model) as twin:
        image = make_dummy(twin, size)  # before `operands`: it looks at parameters
        twin.get_submodule(end).register_forward_hook(lambda *_: entered.update(operands.found))
        with operands:
            call_backbone(twin, image)
    return [parameter for parameter in model.parameters(recurse=False) if id(parameter) in entered]


class _Operands(TorchFunctionMode):
    """Record which tensors take part in any operation."""

    def __init__(self) -> None:
        super().__init__()
        self.found: set[int] = set()

    def __torch_function__(
        self, func: Callable[..., Any], types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Record the arguments of an operation."""
        kwargs = kwargs or {}
        self.found.update(id(tensor) for tensor in tensors_of((*args, *kwargs.values())))
        return func(*args, **kwargs)
