"""A dry run over a stand-in image: which stages there are, what comes out of them, what has run by then."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from ppl.backbones.data_config import data_config
from ppl.backbones.errors import UnsupportedBackboneError
from ppl.backbones.families import Family, family_of, hidden_family
from ppl.backbones.names import last_leaf, stage_names
from ppl.backbones.norms import batch_norms
from ppl.backbones.patches import image_grid
from ppl.backbones.stages import Layout, Stage
from ppl.backbones.state import attributes_kept, make_dummy, untouched
from ppl.errors import PPLError, PPLTypeError, PPLValueError

__all__ = [
    "Trace",
    "call_backbone",
    "has_forward_features",
    "native_size",
    "resolve_stages",
    "runs_on",
    "size_multiple",
    "trace_model",
    "with_size_multiple",
]

# Oblong, so that height and width can be told apart; small, so that it costs little.
_PROBES = ((64, 96), (128, 192))
_DUMMIES = ((32, 32), (64, 64), (96, 96), (128, 128))
_MULTIPLES = (1, 2, 4, 8, 16, 32, 64)
# Odd at the start, and odd after strides that round down.
_ODD = ((97, 99), (151, 203))


@dataclass(frozen=True)
class Trace:
    """What a dry run tells of a model.

    Attributes:
        stages: its stages, in the order in which they run.
        prefixes: per stage, dotted names of the modules that have done their work when the stage ends.
        idle: those of them that depend on the image and return what has the shape of their input, outermost ones alone:
            for a stand-in image they need not run. (What does not depend on it, such as positions that all blocks
            share, may be used after the cut.)
        overwritten: names of the stages whose output a later layer writes into.
        wrapped: names of the stages that return a tuple of their feature and of what is none (the grid's size, say).
        final: the map that comes out at the end, as a stage.
        has_map: `forward_features` returns that map; otherwise it is what the last stage returns.
        dummy: size of the smallest image that the model accepts.
        fixed: the one image size that is known to work, where others failed.
        probe: size of the image of this dry run.
        multiple: heights and widths of images must be multiples of it, if that was asked for.
    """

    stages: tuple[Stage, ...]
    prefixes: tuple[tuple[str, ...], ...]
    idle: tuple[tuple[str, ...], ...]
    overwritten: frozenset[str]
    wrapped: frozenset[str]
    final: Stage
    has_map: bool
    dummy: tuple[int, int]
    fixed: tuple[int, int] | None
    probe: tuple[int, int]
    multiple: int = 1


def has_forward_features(model: nn.Module) -> bool:
    """Whether the model can compute its final map without a head, as timm's models do."""
    return callable(getattr(model, "forward_features", None))


def call_backbone(model: nn.Module, x: Tensor) -> Any:
    """The model's own pass up to its final map, or the whole of it where it has no `forward_features`."""
    if has_forward_features(model):
        return model.forward_features(x)  # type: ignore[operator]
    return model(x)


def resolve_stages(
    model: nn.Module, stages: Sequence[str] | None = None, input_size: tuple[int, int] | None = None
) -> tuple[Stage, ...]:
    """Find the stages of a backbone by a dry run.

    The model is left as it was, with its mode, attributes, hooks and BatchNorm statistics, and so is the random state.

    Args:
        model: a timm model or any module that takes images (B,3,H,W).
        stages: dotted module names, shallow to deep; None reads the model's own `feature_info`.
        input_size: (H,W) for a model that takes no other size; by default small ones are tried, then the model's own.

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
    with attributes_kept(model):  # some families are switched to take maps of any size
        return trace_model(model, stages, input_size).stages


def trace_model(
    model: nn.Module,
    stages: Sequence[str] | None = None,
    input_size: tuple[int, int] | None = None,
    blocks: Sequence[str] = (),
) -> Trace:
    """`resolve_stages`, and all else that the dry run tells; modules named in `blocks` count as stages too."""
    if any(is_lazy(parameter) for parameter in model.parameters()):
        raise PPLTypeError(
            f"{type(model).__name__} has lazy modules, which do not know their shapes yet: run it on one image first"
        )
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
        found.append(_describe(model, name, leaf, output, size, declared.get(name, {}), family))
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
        final = _describe(model, "forward_features", "", result, size, expected, family)
    prefixes = tuple(_finished(model, record.ends, when) for when, _, _ in order)
    idle = {name for name, given in record.keeping.items() if abs(other.keeping.get(name, given) - given) > 0}
    return Trace(
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


def with_size_multiple(model: nn.Module, trace: Trace) -> Trace:
    """The trace, with what heights and widths of images must be multiples of."""
    return trace if trace.fixed else replace(trace, multiple=size_multiple(model, min(trace.dummy)))


def size_multiple(model: nn.Module, least: int = 32) -> int:
    """What heights and widths must be multiples of, for a model that takes images of more than one size.

    Networks that add maps of several strides (HRNet, DLA), or embed their input in steps, take no others. Candidates
    are tried on images of odd multiples of them, whose maps are odd as soon as they can be.

    Args:
        model: left as it was.
        least: a side that is known to be large enough; all that are tried are larger.

    Returns:
        A power of two from 1 to 64; 1 as well if the model fails at all that are tried.

    Example:
        >>> import timm
        >>> size_multiple(timm.create_model("test_resnet").eval())
        1
    """
    for multiple in _MULTIPLES:
        # 64 more, 128 more: nothing odd is lost
        more = -(-max(0, least - 64) // 64) * 64
        sides = [[(side + more) // multiple | 1 for side in size] for size in _ODD]
        sizes = [(multiple * height, multiple * width) for height, width in sides]
        if all(runs_on(model, size) for size in sizes):
            return multiple
    return 1


def runs_on(model: nn.Module, size: tuple[int, int]) -> bool:
    """Whether a model takes a black image of that size; it is left as it was."""
    try:
        with untouched(model):
            call_backbone(model, make_dummy(model, size))
    except Exception:  # any: models say "not this size" in many ways
        return False
    return True


def _shared_norm(model: nn.Module, record: _Record, when: int) -> str:
    """Why a cut then would show the dummy to live statistics, if a BatchNorm serves both sides of it."""
    norms = set(batch_norms(model))
    for name, start in record.starts.items():
        if model.get_submodule(name) in norms and start <= when < record.ends[name]:
            return f"{name!r} runs before and after it, so its statistics would see the dummy image"
    return ""


def _finished(model: nn.Module, ends: dict[str, int], when: int) -> tuple[str, ...]:
    """Modules that have ended by then, and those inside of them that are used without being called."""
    finished = set()
    for name, _ in model.named_modules():  # parents come before children
        parent = name.rpartition(".")[0]
        if name and (ends[name] <= when if name in ends else parent in finished):
            finished.add(name)
    return tuple(sorted(finished))


def _outermost(names: set[str]) -> tuple[str, ...]:
    """Those that are not inside of another one."""
    found = []
    for name in sorted(names):
        parts = name.split(".")
        if not any(".".join(parts[:count]) in names for count in range(1, len(parts))):
            found.append(name)
    return tuple(found)


def native_size(model: nn.Module) -> tuple[int, int]:
    """(H,W) that a model was built for: its own word (`img_size`, Hugging Face's `config`) before its data's."""
    embeds = [module for name, module in model.named_children() if name.endswith("embed")]
    words = [getattr(owner, "img_size", None) for owner in (*embeds, model)]
    for size in (*words, getattr(getattr(model, "config", None), "image_size", None)):
        if isinstance(size, int):
            return size, size
        if isinstance(size, (tuple, list)) and len(size) == 2:
            return int(size[0]), int(size[1])
    height, width = data_config(model)["input_size"][1:]
    return int(height), int(width)


def is_wrapped(output: Any, family: Family) -> bool:
    """Whether a stage returns a tuple of which only the first member, tokens or a map, is its feature."""
    if not isinstance(output, (list, tuple)) or not output or family.cut is not None:
        return False
    first = output[0]
    if not isinstance(first, Tensor):
        return False
    return first.ndim == 3 or (first.ndim == 4 and not all(isinstance(member, Tensor) for member in output))


class _Record:
    """Who ended when, who keeps the shape of what it is given, and what the stages returned."""

    def __init__(self, model: nn.Module, leaves: Sequence[str]) -> None:
        self.starts: dict[str, int] = {}
        self.ends: dict[str, int] = {}
        self.outputs: dict[str, list[Any]] = {leaf: [] for leaf in leaves}
        self.versions: dict[str, list[int]] = {}
        self.keeping: dict[str, float] = {}  # modules that keep the shape of what they are given, and its sum
        self.result: Any = None
        self.clock = 0
        # the end of a module shared by several places is the end of its last call
        self.handles = [module.register_forward_hook(self._hook(name)) for name, module in model.named_modules()]

    def _hook(self, name: str) -> Any:
        def keep(module: nn.Module, args: Any, output: Any) -> None:
            self.clock += 1
            if keeps_shape(args, output) and (name in self.keeping or name not in self.starts):
                self.keeping[name] = self.keeping.get(name, 0.0) + float(args[0].sum())
            else:
                self.keeping.pop(name, None)
            self.starts.setdefault(name, self.clock)
            self.ends[name] = self.clock
            if name in self.outputs:
                self.outputs[name].append(output)
                self.versions[name] = [tensor._version for tensor in tensors_of(output)]

        return keep

    def overwritten(self, leaf: str) -> bool:
        now = [tensor._version for tensor in tensors_of(self.outputs[leaf][0])]
        return now != self.versions[leaf]

    def close(self) -> None:
        for handle in self.handles:
            handle.remove()


def keeps_shape(args: Sequence[Any], output: Any) -> bool:
    """Whether a module returned one tensor, of shape and type of its first argument."""
    given = args[0] if args else None
    if not isinstance(given, Tensor) or not isinstance(output, Tensor) or given.is_meta:
        return False
    return given.shape == output.shape and given.dtype == output.dtype


def tensors_of(output: Any) -> list[Tensor]:
    """The tensors of a stage's output, whether one or a (nested) sequence of them."""
    if isinstance(output, Tensor):
        return [output]
    if isinstance(output, (list, tuple)):
        return [tensor for member in output for tensor in tensors_of(member)]
    return []


def _first_that_runs(
    model: nn.Module, sizes: Sequence[tuple[int, int]], leaves: Sequence[str], *, black: bool = True
) -> tuple[tuple[int, int], _Record]:
    reason: Exception | None = None
    for size in sizes:
        record = _Record(model, leaves)
        try:
            with untouched(model):  # a size too small for a model may leave something behind
                image = make_dummy(model, size)
                record.result = call_backbone(model, image if black else torch.randn_like(image))
        except Exception as error:  # any: models say "not this size" in many ways
            reason = error
        else:
            return size, record
        finally:
            record.close()
    tried = ", ".join(f"{height}x{width}" for height, width in sizes)
    text = str(reason).strip().splitlines()
    raise PPLError(
        f"{type(model).__name__} fails on images of {tried}: {type(reason).__name__}: {text[0] if text else ''}; "
        "give the size that it takes as input_size=(H,W) or as the module's attribute `img_size`"
    ) from reason


def _describe(
    model: nn.Module,
    name: str,
    leaf: str,
    output: Any,
    size: tuple[int, int],
    declared: dict[str, Any],
    family: Family,
) -> Stage:
    """Read layout, channels and reduction off one output."""
    channels = declared.get("num_chs")
    if isinstance(output, (list, tuple)) and output and all(isinstance(member, Tensor) for member in output):
        maps = [member for member in output if member.ndim == 4]
        if maps:
            finest = max(maps, key=lambda member: int(member.shape[-1]))
            reduction = _reduction(size, finest.shape[-2:], declared.get("reduction"))
            return Stage(name, leaf, "list", int(finest.shape[1]), reduction)
        if family.cut is not None:
            return Stage(name, leaf, "list", int(declared["num_chs"]), int(declared["reduction"]))
    if isinstance(output, Tensor) and output.ndim == 4:
        layout = _map_layout(model, output.shape, size, channels)
        cells = output.shape[2:] if layout == "NCHW" else output.shape[1:3]
        found = output.shape[1] if layout == "NCHW" else output.shape[3]
        return Stage(name, leaf, layout, int(found), _reduction(size, cells, declared.get("reduction")))
    if isinstance(output, Tensor) and output.ndim == 3:
        # tokens: so many prefix tokens as leave a grid over the image
        for prefix in (getattr(model, "num_prefix_tokens", 0), *range(9)):
            cells = output.shape[1] - prefix
            reduction = int(declared.get("reduction") or _token_reduction(cells, size))
            if image_grid(cells, size, reduction):
                return Stage(name, leaf, "NLC", int(output.shape[2]), reduction, prefix)
    shape = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
    raise PPLValueError(f"stage {name!r} of {type(model).__name__} returns no map but {shape}: choose another stage")


def _map_layout(model: nn.Module, shape: torch.Size, size: tuple[int, int], channels: int | None) -> Layout:
    """Tell channels first from channels last: by the declared channels, the shape of the image, the model's word."""
    first = {"NCHW": (shape[1], shape[2], shape[3]), "NHWC": (shape[3], shape[1], shape[2])}
    possible: list[Layout] = ["NCHW", "NHWC"]
    by_channels = [layout for layout in possible if first[layout][0] == channels]
    if len(by_channels) == 1:
        return by_channels[0]
    # cells are about as oblong as the image
    errors = {
        layout: abs(first[layout][1] / first[layout][2] - size[0] / size[1]) for layout in (by_channels or possible)
    }
    if size[0] != size[1] and len(set(errors.values())) > 1:
        return min(errors, key=lambda layout: errors[layout])
    return "NHWC" if getattr(model, "output_fmt", "NCHW") == "NHWC" else "NCHW"


def _token_reduction(count: int, size: tuple[int, int]) -> int:
    return max(1, round(math.sqrt(size[0] * size[1] / max(count, 1))))


def _reduction(size: tuple[int, int], cells: Sequence[int], declared: Any) -> int:
    """Pixels per cell: as declared, if that is near what is measured or the measure is no clean one.

    Convolutions without padding lose cells, and the fewer there are the more that distorts the measure.
    """
    rows, columns = size[0] / cells[0], size[1] / cells[1]
    if declared is not None and (abs(declared - rows) <= 0.35 * rows or rows != columns):
        return int(declared)
    return max(1, round(rows))
