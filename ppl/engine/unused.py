"""Find the parameters that a loss does not depend on."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

__all__ = ["unused_parameters"]


def unused_parameters(module: nn.Module, loss: Tensor) -> list[str]:
    """Return the names of the trained parameters that get no gradient from a loss.

    Args:
        module: the module.
        loss: a scalar with its graph.

    Example:
        >>> import torch
        >>> model = nn.ModuleDict({"used": nn.Linear(2, 1), "spare": nn.Linear(2, 1, bias=False)})
        >>> unused_parameters(model, model["used"](torch.ones(1, 2)).sum())
        ['spare.weight']
    """
    waiting: list[Any] = [loss.grad_fn]
    seen, reached = set(), set()
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):  # the end of the graph at a parameter
            reached.add(id(node.variable))
        waiting.extend(following for following, _ in node.next_functions)
    return [name for name, value in module.named_parameters() if value.requires_grad and id(value) not in reached]
