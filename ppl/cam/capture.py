"""Read, or replace, what one layer returns during a forward pass of this thread."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ppl.cam.layouts import first_tensor
from ppl.errors import PPLValueError

__all__ = ["captured_output", "graph_from", "only_output"]


@contextmanager
def captured_output(layer: nn.Module) -> Iterator[list[Any]]:
    """Collect the outputs of a layer in passes of this thread; other threads' passes are left alone."""
    thread, outputs = threading.get_ident(), []

    def keep(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        if threading.get_ident() == thread:
            outputs.append(output)

    handle = layer.register_forward_hook(keep)
    try:
        yield outputs
    finally:
        handle.remove()


@contextmanager
def graph_from(layer: nn.Module) -> Iterator[list[Tensor]]:
    """Let the graph of gradients begin at the output of a layer, in passes of this thread.

    What runs before the layer keeps no gradients. The list collects the output, of which gradients can be taken.
    """
    thread, roots = threading.get_ident(), []

    def replace(module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        tensor = first_tensor(output)
        if threading.get_ident() != thread or tensor is None:
            return None
        torch.set_grad_enabled(True)  # until no_grad below is left
        roots.append(tensor.detach().clone().requires_grad_())
        onward = roots[-1].clone()  # a later layer may write into its input, which a root does not allow
        return type(output)((onward, *output[1:])) if isinstance(output, (tuple, list)) else onward

    handle = layer.register_forward_hook(replace)
    try:
        # The caller may be in inference mode, which records no graph.
        with torch.inference_mode(False), torch.no_grad():
            yield roots
    finally:
        handle.remove()


def only_output(outputs: list[Any], name: str) -> Any:
    """Return the one output that a layer gave.

    Raises:
        PPLValueError: if the layer ran more than once, or not at all.
    """
    if len(outputs) != 1:
        raise PPLValueError(f"layer {name!r} ran {len(outputs)} times in one pass: choose a layer that runs once")
    return outputs[0]
