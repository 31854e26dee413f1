"""Run a backbone once on a small image: its stages, their outputs, and the modules that have run by then."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from ppl.backbones.describe import describe, is_wrapped
from ppl.backbones.dummy import call_backbone, has_forward_features, make_dummy, trial
from ppl.backbones.errors import UnsupportedBackboneError
from ppl.backbones.families import check_attributes, family_of, hidden_family
from ppl.backbones.image_sizes import native_size, size_multiple
from ppl.backbones.names import last_leaf, stage_names
from ppl.backbones.norms import batch_norms
from ppl.backbones.patches import tensors_of
from ppl.backbones.size_errors import first_line, size_error
from ppl.backbones.stages import Stage
from ppl.errors import PPLError, PPLTypeError
from ppl.layers.shared_copy import shared_copy

__all__ = ["BackboneInfo", "inspect_backbone", "resolve_stages", "with_size_multiple"]

_PROBES = ((64, 96), (128, 192))  # Oblong, to tell height from width; small, to be fast.
_DUMMIES = ((32, 32), (64, 64), (96, 96), (128, 128))


@dataclass(frozen=True)
class BackboneInfo:
    """The result of a dry run.

    Attributes:
        stages: the stages, in the order in which they run.
        prefixes: per stage, dotted names of the modules that have run for the last time when the stage ends.
        idle: per stage, names of those modules that depend on the image and keep the shape of their input, outermost
            ones only: a dummy image can skip them. (Modules that do not depend on the image, such as shared positions,
            may be used after the cut.)
        overwritten: names of the stages into whose output a later layer writes.
        wrapped: names of the stages that return a tuple whose first member is their feature.
        final: description of the final map.
        has_map: `forward_features` returns the final map; otherwise the last stage returns it.
        dummy: (H,W) of the smallest image that the model accepts.
        fixed: the only image size that is known to work; None if the model takes other sizes.
        probe: (H,W) of the image of the dry run.
        multiple: heights and widths of images must be multiples of it (see :func:`with_size_multiple`).
    """

    stages: tuple[Stage, ...]
    prefixes: tuple[frozenset[str], ...]
    idle: tuple[tuple[str, ...], ...]
    overwritten: frozenset[str]
    wrapped: frozenset[str]
    final: Stage
    has_map: bool
    dummy: tuple[int, int]
    fixed: tuple[int, int] | None
    probe: tuple[int, int]
    multiple: int = 1


def resolve_stages(
    model: nn.Module, stages: Sequence[str] | None = None, input_size: tuple[int, int] | None = None
) -> tuple[Stage, ...]:
    """Find the stages of a backbone by a dry run; the model and the random state stay as they were.

    Args:
        model: a timm model or any module that takes images (B,3,H,W).
        stages: dotted module names, shallow to deep; None reads the model's own `feature_info`.
        input_size: (H,W) for a model that takes no other size; by default small sizes are tried, then the model's own.

    Returns:
        The stages in the order in which they run, the last one included.

    Raises:
        PPLValueError: if a name is no module, no stages are known, or a stage's output is no map.
        PPLTypeError: if the model has lazy modules that have not run yet.
        PPLError: if the model fails at every size tried, or a stage does not run exactly once.

    Example:
        >>> import timm
        >>> [stage.name for stage in resolve_stages(timm.create_model("test_resnet"))]
        ['act1', 'layer1', 'layer2', 'layer3', 'layer4']
    """
    _refuse_lazy(model)
    return inspect_backbone(shared_copy(model, model), stages, input_size).stages


def _refuse_lazy(model: nn.Module) -> None:
    if any(is_lazy(parameter) for parameter in model.parameters()):
        raise PPLTypeError(
            f"{type(model).__name__} has lazy modules, which do not know their shapes yet: run it on one image first"
        )


def inspect_backbone(
    model: nn.Module,
    stages: Sequence[str] | None = None,
    input_size: tuple[int, int] | None = None,
    blocks: Sequence[str] = (),
) -> BackboneInfo:
    """Return all results of the dry run of :func:`resolve_stages`; modules named in `blocks` count as stages too.

    Some families are switched, in place, to take maps of any size.
    """
    _refuse_lazy(model)
    family = family_of(model)
    refusal = family.refuse(model) if family.refuse else None
    if refusal:
        raise UnsupportedBackboneError(
            f"{type(model).__name__} cannot be cut into patches: {refusal.reason}; take {refusal.instead}"
        )
    hidden = hidden_family(model)
    if hidden:
        raise UnsupportedBackboneError(
            f"{type(model).__name__} wraps a {type(model.get_submodule(hidden)).__name__} of timm ({hidden!r}), whose "
            "tokens or positions are cut rightly only where it is the backbone itself: hand over that module"
        )
    check_attributes(model, family)
    if family.prepare:
        family.prepare(model)
    modules = dict(model.named_modules())
    names = stage_names(model, stages)
    names += [name for name in blocks if name and name in modules and name not in names]
    leaves = {last_leaf(model, name): name for name in names}
    native = input_size or native_size(model)
    probes = [native] if input_size else [*_PROBES, native]
    size, record = _first_that_runs(model, probes, list(leaves))
    _, other = _first_that_runs(model, [size], [], black=False)
    dummy, _ = _first_that_runs(model, [*_DUMMIES, size], [])

    order = []
    for leaf, name in leaves.items():
        outputs = record.outputs[leaf]
        if len(outputs) == 1:
            order.append((record.ends[leaf], leaf, name))
        elif stages is not None:
            raise PPLError(
                f"stage {name!r} runs {len(outputs)} times in one pass: name a module that runs exactly once"
            )
    order.sort()
    if not order:
        raise PPLError(f"none of the stages of {type(model).__name__} ({', '.join(names)}) runs exactly once in a pass")

    declared = {entry["module"]: entry for entry in getattr(model, "feature_info", None) or []}
    found, wrapped = [], set()
    for _, leaf, name in order:
        output = record.outputs[leaf][0]
        if is_wrapped(output, family):
            wrapped.add(name)
            output = output[0]
        found.append(describe(model, name, leaf, output, size, declared.get(name, {}), family))
    shared = [_shared_norm(model, record, when) for when, _, _ in order]
    found = [replace(stage, refusal=reason) if reason else stage for stage, reason in zip(found, shared, strict=True)]
    if family.only:
        usable, reason = family.only(model, [stage.name for stage in found])
        found = [stage if stage.name in usable else replace(stage, refusal=reason) for stage in found]
    final = found[-1]
    has_map = has_forward_features(model) and not family.from_last_stage
    if has_map:
        result = family.final(record.result) if family.final else record.result
        expected = {"num_chs": getattr(model, "num_features", None), "reduction": final.reduction}
        final = describe(model, "forward_features", "", result, size, expected, family)
    prefixes = tuple(_finished(model, record.ends, when) for when, _, _ in order)
    idle = {name for name, given in record.keeping.items() if abs(other.keeping.get(name, given) - given) > 0}
    return BackboneInfo(
        stages=tuple(found),
        prefixes=prefixes,
        idle=tuple(_outermost(idle.intersection(prefix)) for prefix in prefixes),
        overwritten=frozenset(name for _, leaf, name in order if record.overwritten(leaf)),
        wrapped=frozenset(wrapped),
        final=final,
        has_map=has_map,
        dummy=dummy,
        fixed=size if size not in _PROBES else None,
        probe=size,
    )


def with_size_multiple(model: nn.Module, info: BackboneInfo) -> BackboneInfo:
    """Return `info` with the number of which heights and widths of images must be multiples, found by trial."""
    return info if info.fixed else replace(info, multiple=size_multiple(model, min(info.dummy)))


def _shared_norm(model: nn.Module, record: _Record, when: int) -> str:
    """Return why a cut at this time would show the dummy image to BatchNorm, if one runs before and after the cut."""
    norms = set(batch_norms(model))
    for name, start in record.starts.items():
        if model.get_submodule(name) in norms and start <= when < record.ends[name]:
            return f"{name!r} runs before and after it, so its statistics would see the dummy image"
    return ""


def _finished(model: nn.Module, ends: dict[str, int], when: int) -> frozenset[str]:
    """Return the modules that have ended by then, and modules inside them that are used without being called."""
    finished = set()
    for name, _ in model.named_modules():  # parents come before children
        parent = name.rpartition(".")[0]
        if name and (ends[name] <= when if name in ends else parent in finished):
            finished.add(name)
    return frozenset(finished)


def _outermost(names: set[str]) -> tuple[str, ...]:
    """Return the names that are not inside another one."""
    found = []
    for name in sorted(names):
        parts = name.split(".")
        if not any(".".join(parts[:count]) in names for count in range(1, len(parts))):
            found.append(name)
    return tuple(found)


class _Record:
    """Times of modules, outputs of stages, and modules that keep the shape of their input, by forward hooks."""

    def __init__(self, model: nn.Module, leaves: Sequence[str]) -> None:
        self.starts: dict[str, int] = {}
        self.ends: dict[str, int] = {}
        self.outputs: dict[str, list[Any]] = {leaf: [] for leaf in leaves}
        self.versions: dict[str, list[int]] = {}
        self.keeping: dict[str, float] = {}  # modules that keep their input's shape, and its sum
        self.result: Any = None
        self.clock = 0
        # A module that is used several times ends with its last call.
        for name, module in model.named_modules():
            module.register_forward_hook(self._hook(name))

    def _hook(self, name: str) -> Any:
        def keep(module: nn.Module, args: Any, output: Any) -> None:
            self.clock += 1
            if _keeps_shape(args, output) and (name in self.keeping or name not in self.starts):
                self.keeping[name] = self.keeping.get(name, 0.0) + float(args[0].sum())
            else:
                self.keeping.pop(name, None)
            self.starts.setdefault(name, self.clock)
            self.ends[name] = self.clock
            if name in self.outputs:
                self.outputs[name].append(output)
                self.versions[name] = [tensor._version for tensor in tensors_of(output)]

        return keep

    def run(self, model: nn.Module, image: Tensor) -> None:
        self.result = call_backbone(model, image)

    def overwritten(self, leaf: str) -> bool:
        now = [tensor._version for tensor in tensors_of(self.outputs[leaf][0])]
        return now != self.versions[leaf]


def _keeps_shape(args: Sequence[Any], output: Any) -> bool:
    """Tell whether a module returned one tensor, of the shape and dtype of its first argument."""
    given = args[0] if args else None
    if not isinstance(given, Tensor) or not isinstance(output, Tensor) or given.is_meta:
        return False
    return given.shape == output.shape and given.dtype == output.dtype


def _first_that_runs(
    model: nn.Module, sizes: Sequence[tuple[int, int]], leaves: Sequence[str], *, black: bool = True
) -> tuple[tuple[int, int], _Record]:
    """Return the first size on which the model runs, and the record of that run."""
    for size in sizes:
        with trial(model) as twin:
            record = _Record(twin, leaves)
            image = make_dummy(twin, size)
            error = size_error(lambda: record.run(twin, image if black else torch.randn_like(image)))  # noqa: B023
        if error is None:
            return size, record
    tried = ", ".join(f"{height}x{width}" for height, width in sizes)
    raise PPLError(
        f"{type(model).__name__} fails on images of {tried}: {first_line(error)}; "
        "give the size that it takes as input_size=(H,W) or as the module's attribute `img_size`"
    ) from error
