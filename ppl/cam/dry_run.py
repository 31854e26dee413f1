"""Find the maps of a classifier, and the head that reads them, by one pass on a small image."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from ppl.backbones.dummy import make_dummy, trial
from ppl.backbones.image_sizes import native_size
from ppl.backbones.size_errors import attempt, first_line
from ppl.cam.capture import graph_from
from ppl.cam.class_token import short_copy
from ppl.cam.layouts import MapLayout, find_layout, first_tensor
from ppl.cam.linear_head import LinearHead, close, find_linear_head
from ppl.errors import PPLTypeError, PPLValueError

__all__ = ["DryRun", "dry_run", "logits_of"]

# Not square, so that rows are told from columns; the larger ones are for networks that lose cells or need whole
# windows.
_SIZES = ((128, 192), (192, 288), (224, 336), (256, 384))


@dataclass(frozen=True)
class DryRun:
    """The maps of a classifier, as one pass shows them.

    Attributes:
        num_classes: K.
        size: (H,W) of the images of the pass.
        fixed: whether the classifier takes images of no other size.
        layouts: layouts of the layers that return a map, by name, in the order in which the layers end.
        last: name of the last layer with a map that the logits depend on; None if there is none.
        features: name of the last of these layers that is not the classifier itself, which gives one channel per class.
        complete: whether the logits depend on a layer at all; those of a head of zeros do not until it is trained.
        head: the head if it is linear over the pooled map of a layer, else None.
        short: whether a copy of :func:`~ppl.cam.class_token.short_copy` at `features` has the same logits.
    """

    num_classes: int
    size: tuple[int, int]
    fixed: bool
    layouts: dict[str, MapLayout]
    last: str | None
    features: str | None
    complete: bool
    head: LinearHead | None
    short: bool


def logits_of(output: Any, images: int) -> Tensor:
    """Return the logits (B,K) in what a classifier returns.

    Args:
        output: a tensor, an object or mapping with `logits`, or a tuple or list that begins with the logits.
        images: B.

    Raises:
        PPLTypeError: if there are no logits of that shape.

    Example:
        >>> logits_of({"logits": torch.zeros(2, 5)}, 2).shape
        torch.Size([2, 5])
    """
    found = output
    if hasattr(output, "logits"):
        found = output.logits
    elif isinstance(output, dict) and "logits" in output:
        found = output["logits"]
    elif isinstance(output, (tuple, list)) and output:
        found = output[0]
    if isinstance(found, Tensor) and found.ndim == 2 and len(found) == images:
        return found
    shape = f"shape {tuple(found.shape)}" if isinstance(found, Tensor) else type(found).__name__
    raise PPLTypeError(
        f"the model must return logits (B,K) for {images} images, got {shape}: pass a classifier, or wrap the model in "
        "a module that returns its logits"
    )


def dry_run(model: nn.Module, forward: Callable[[nn.Module, Tensor], Any]) -> DryRun:
    """Run a classifier once and record its maps; the model is left as it was.

    The result is kept for as long as the model lives and consists of the same modules.

    Args:
        model: the classifier.
        forward: computes logits, or what :func:`logits_of` reads, from the model or its copy and images (B,3,H,W).

    Raises:
        PPLTypeError: if the model returns no logits.
        PPLValueError: if it fails on images of every size that is tried.
    """
    modules = tuple(map(id, model.modules()))
    known = _KNOWN.get(model)
    if known is not None and known[0] == modules:
        return known[1]
    found = _dry_run(model, forward)
    if found.complete:
        _KNOWN[model] = modules, found
    return found


_KNOWN: WeakKeyDictionary[nn.Module, tuple[tuple[int, ...], DryRun]] = WeakKeyDictionary()


def _dry_run(model: nn.Module, forward: Callable[[nn.Module, Tensor], Any]) -> DryRun:
    native = native_size(model)
    sizes = [size for size in _SIZES if size != native]
    for size in (*sizes, native):
        with trial(model) as twin, torch.enable_grad():
            found, reason = attempt(partial(_run, twin, forward, size, fixed=size == native))
        if found is not None:
            return found
    raise PPLValueError(
        f"{type(model).__name__} fails on images of {native[0]}x{native[1]} and on smaller ones: "
        f"{first_line(reason)}; if the model takes one size alone, name that size in "
        "its attribute `img_size`"
    ) from reason


def _run(
    model: nn.Module, forward: Callable[[nn.Module, Tensor], Any], size: tuple[int, int], *, fixed: bool
) -> DryRun:
    record = _Record(model)
    images = _noise(model, size).requires_grad_()
    logits = logits_of(forward(model, images), len(images))
    return _describe(model, forward, record, logits, size, fixed=fixed)


def _noise(model: nn.Module, size: tuple[int, int]) -> Tensor:
    """Return two images of noise, drawn without a trace in the random state."""
    dummy = make_dummy(model, size, batch=2)
    noise = torch.randn(dummy.shape, generator=torch.Generator().manual_seed(0))
    return noise.to(dummy)


class _Record:
    """Record of the outputs of all layers in one pass, in the order in which the layers end."""

    def __init__(self, model: nn.Module) -> None:
        self.names = {module: name for name, module in model.named_modules() if name}
        self.calls: dict[str, int] = {}
        self.inputs: dict[str, Any] = {}
        self.outputs: dict[str, Tensor] = {}
        self.versions: dict[str, int] = {}
        self.handles = [module.register_forward_hook(self._keep) for module in self.names]

    def _keep(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        name, tensor = self.names[module], first_tensor(output)
        self.calls[name] = self.calls.get(name, 0) + 1
        self.outputs.pop(name, None)
        if tensor is not None and self.calls[name] == 1:
            self.inputs[name] = args[0] if args else None
            self.outputs[name] = tensor
            self.versions[name] = tensor._version

    def unchanged(self, name: str) -> bool:
        """Tell whether no later layer wrote into the output of a layer."""
        return self.outputs[name]._version == self.versions[name]

    def close(self) -> None:
        """Stop recording."""
        for handle in self.handles:
            handle.remove()


def _describe(
    model: nn.Module,
    forward: Callable[[nn.Module, Tensor], Any],
    record: _Record,
    logits: Tensor,
    size: tuple[int, int],
    *,
    fixed: bool,
) -> DryRun:
    channels_last = getattr(model, "output_fmt", "NCHW") == "NHWC"
    prefix_tokens = getattr(model, "num_prefix_tokens", None)
    layouts = {}
    for name, output in record.outputs.items():
        if len(output) == len(logits):
            layout = find_layout(output.shape, size, channels_last=channels_last, prefix_tokens=prefix_tokens)
            layout = layout or find_layout(output.shape, size)
            if layout is not None:
                layouts[name] = layout
    used = _maps_that_count(model, record, logits, layouts)
    last = used[-1] if used else next(reversed(layouts), None)
    record.close()
    images = _noise(model, size)
    candidates = [name for name in used if layouts[name].channels != logits.shape[1]] or used
    features = next(
        (name for name in reversed(candidates) if _is_read(model, forward, images, name, layouts[name])), None
    )
    if not used:  # a head of zeros
        features = last
    head = find_linear_head(model, record, logits, last, layouts, size) if last is not None else None
    short = bool(used) and features is not None and _is_short(model, forward, images, features, layouts[features])
    return DryRun(logits.shape[1], size, fixed, layouts, last, features, bool(used), head, short)


def _maps_that_count(model: nn.Module, record: _Record, logits: Tensor, layouts: dict[str, MapLayout]) -> list[str]:
    """Return the layers whose maps the logits depend on, cell by cell, in order.

    Behind the last block of a transformer whose head reads the class token alone, no cell counts any more. Of tokens,
    the outputs of blocks and norms are taken, not those of the projections inside of an attention.
    """
    names = list(layouts)
    outputs = [record.outputs[name] for name in names]
    gradients = torch.autograd.grad((logits * _projection(logits)).sum(), outputs, allow_unused=True) if outputs else ()
    used = [name for name, gradient in zip(names, gradients, strict=True) if _reaches_cells(gradient, layouts[name])]
    whole = [name for name in used if _is_whole(model, name, layouts[name])]
    return whole or used


def _is_read(
    model: nn.Module,
    forward: Callable[[nn.Module, Tensor], Any],
    images: Tensor,
    name: str,
    layout: MapLayout,
) -> bool:
    """Tell whether the logits depend on the output of a layer and not on a tensor that the layer only handed on."""
    with graph_from(model.get_submodule(name)) as roots:
        logits = logits_of(forward(model, images), len(images))
        total = (logits * _projection(logits)).sum()
        (gradient,) = torch.autograd.grad(total, roots[0], allow_unused=True)
    return _reaches_cells(gradient, layout)


@torch.no_grad()
def _is_short(
    model: nn.Module, forward: Callable[[nn.Module, Tensor], Any], images: Tensor, name: str, layout: MapLayout
) -> bool:
    """Tell whether the logits are those of a copy that computes the tokens before the map alone in its last block."""
    twin = short_copy(model, name, layout.prefix_tokens)
    if twin is None:
        return False
    found, expected = (logits_of(forward(each, images), len(images)) for each in (twin, model))
    return close(found, expected)


def _projection(logits: Tensor) -> Tensor:
    """Return random weights of the logits, the same in every call."""
    return torch.randn(logits.shape, generator=torch.Generator().manual_seed(1)).to(logits)


def _reaches_cells(gradient: Tensor | None, layout: MapLayout) -> bool:
    if gradient is None:
        return False
    cells = gradient[:, layout.prefix_tokens :] if layout.kind == "NLC" else gradient
    return bool((cells != 0).any())


def _is_whole(model: nn.Module, name: str, layout: MapLayout) -> bool:
    """Tell whether an output is a map as it goes from block to block, and not resized by a pooling layer."""
    module = model.get_submodule(name)
    if layout.kind == "NLC":
        parent = model.get_submodule(name.rpartition(".")[0])
        return isinstance(parent, (nn.ModuleList, nn.Sequential)) or "norm" in type(module).__name__.lower()
    return not isinstance(module, (nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d))
