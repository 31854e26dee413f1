"""The identities of cutting, measured at one cut of one model."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ppl.backbones.dummy import make_dummy, trial
from ppl.backbones.errors import UnsupportedBackboneError
from ppl.backbones.families import Tiling
from ppl.backbones.hooked import HookedBackbone
from ppl.backbones.image_sizes import native_size
from ppl.backbones.patches import tensors_of
from ppl.backbones.size_errors import attempt, first_line

__all__ = [
    "CutReport",
    "check_gradient",
    "check_position",
    "check_values",
    "faults",
    "in_double",
    "lies_over_the_image",
    "size_to_try",
    "verify",
]

_TOLERANCE = 1e-4


@dataclass(frozen=True)
class CutReport:
    """The measurements at one cut.

    Attributes:
        stage: name of the stage before the cut.
        layout: layout of the stage's output.
        reduction: input pixels per cell of the output.
        reason: the identity that fails, and how; empty if none fails.
        resume_error: largest difference between resuming and the plain forward, relative to the largest value.
        patch_error: largest influence of one patch on another, relative to the largest value.
    """

    stage: str
    layout: str
    reduction: int
    reason: str = ""
    resume_error: float = float("nan")
    patch_error: float = float("nan")


def verify(backbone: HookedBackbone) -> None:
    """Raise UnsupportedBackboneError unless resuming and patches are right at every cut."""
    for stage, reason in faults(backbone).items():
        raise UnsupportedBackboneError(
            f"{type(backbone.model).__name__} cannot be cut after {stage!r}: {reason}; "
            "choose a stage on whose output alone all later layers depend"
        )


def faults(backbone: HookedBackbone) -> dict[str, str]:
    """Return the stages after which an identity fails on a small random image, with the reason.

    For models that no test covers; `check_backbone` measures more and takes longer.
    """
    found = _faults(backbone)
    if found:
        exact, _ = attempt(lambda: _faults(in_double(backbone)))  # Some models cannot compute in double precision.
        if exact is not None:
            found = {stage: reason for stage, reason in found.items() if stage in exact}
    return found


def in_double(backbone: HookedBackbone) -> HookedBackbone:
    """Return a copy in double precision: the rounding of deep networks with random weights can look like a fault."""
    twin = copy.deepcopy(backbone)
    twin.model.double()
    return twin


def size_to_try(backbone: HookedBackbone, grid: tuple[int, int]) -> tuple[int, int]:
    """Return an image size for trials: small if the model takes any size, its own or a multiple of it if not."""
    native = native_size(backbone.model)
    if backbone.family.window is not None:
        return grid[0] * native[0], grid[1] * native[1]
    return backbone.info.fixed or backbone.info.probe


def _faults(backbone: HookedBackbone) -> dict[str, str]:
    found: dict[str, str] = {}
    grid = (1, 2)
    with trial(backbone, backbone.model) as twin, torch.autocast("cpu", enabled=False):
        x = make_dummy(twin.model, size_to_try(twin, grid), 2)
        x = torch.linspace(-2, 2, x.numel(), dtype=torch.float64).sin().to(x).reshape(x.shape) + torch.rand_like(x)
        final, features = twin.features(x, range(len(twin.cuts)))
        for index, stage in enumerate(twin.cuts):
            empty = CutReport(stage.name, stage.layout, stage.reduction)
            report, error = attempt(
                partial(check_values, twin, index, features[index], final, grid, empty, alive=False)
            )
            reason = first_line(error) if report is None else report.reason
            if not reason and not _difference(twin.features(x, [])[0], final) <= _TOLERANCE:
                reason = "the model keeps something of the dummy image and then differs"
            if reason:
                found[stage.name] = reason
    return found


def check_values(
    backbone: HookedBackbone,
    index: int,
    features: Any,
    final: Tensor,
    grid: tuple[int, int],
    report: CutReport,
    *,
    alive: bool = True,
) -> CutReport:
    """Check that resuming is the plain forward, that the merged map has its size, and that patches are independent.

    With `alive`, a change of a patch must also show in its part of the map.
    """
    size = (int(final.shape[-2]), int(final.shape[-1]))
    resumed = backbone.resume(index, features, size)
    if resumed.shape != final.shape:
        return replace(report, reason=f"resuming gives {tuple(resumed.shape)} instead of {tuple(final.shape)}")
    report = replace(report, resume_error=_difference(resumed, final))
    if not report.resume_error <= _TOLERANCE:
        return replace(report, reason=f"resuming is not the plain forward (difference {report.resume_error:.1e})")

    patches, tiling = backbone.cut(index, features, grid, size)
    whole = backbone.run_patches(index, patches, tiling)
    merged = backbone.merge(whole, tiling, size)
    if merged.shape != final.shape:
        return replace(report, reason=f"patches merge to {tuple(merged.shape)} instead of {tuple(final.shape)}")
    # One image without the other.
    first, single = _take(patches, 2, 0), replace(tiling, images=1)
    rows = backbone.run_patches(index, first, single)
    errors = [_difference(rows, whole.chunk(2)[0])]
    if tiling.patches > 1:  # A change of the first patch must not change the others.
        changed = backbone.run_patches(index, _change_first(first, tiling.patches), single)
        errors.append(_difference(changed[1:], rows[1:]))
        if alive and _difference(changed[:1], rows[:1]) <= _TOLERANCE:
            return replace(report, reason="a change of a patch does not change its part of the map")
    if backbone.family.positions is None:  # One patch without any other.
        last = 2 * tiling.patches - 1
        alone = replace(tiling, images=1, grid=(1, 1), whole=tiling.cells)
        errors.append(_difference(backbone.run_patches(index, _take(patches, last + 1, last), alone), whole[-1:]))
    report = replace(report, patch_error=max(errors))
    if not report.patch_error <= _TOLERANCE:
        return replace(report, reason=f"patches are not independent of each other ({report.patch_error:.1e})")
    return report


def check_position(backbone: HookedBackbone, index: int, features: Any, moved: Any, final: Tensor) -> str:
    """Return a reason unless a change in the upper right quarter of the image changes the upper right patch most."""
    size = (int(final.shape[-2]), int(final.shape[-1]))
    if min(size) < 2 or backbone.cuts[index].layout == "NCHW":  # A map lies over the image by construction.
        return ""
    before, tiling = backbone.cut(index, features, 2, size)
    after, _ = backbone.cut(index, moved, 2, size)
    changes = []
    for one, other in zip(tensors_of(before), tensors_of(after), strict=True):
        rows = (other - one).chunk(2)[0].chunk(tiling.patches)
        changes.append(torch.stack([row.abs().mean() for row in rows]) / _filled(tiling).to(rows[0]))
    return "" if _second_is_largest(changes[0]) else "cells of the stage do not lie over their pixels"


def _filled(tiling: Tiling) -> Tensor:
    """Return the fraction of each patch that is map, not padding."""
    sides = []
    for axis in (0, 1):
        starts = torch.arange(tiling.grid[axis]) * tiling.cells[axis]
        sides.append((tiling.whole[axis] - starts).clamp(1, tiling.cells[axis]) / tiling.cells[axis])
    return (sides[0][:, None] * sides[1]).flatten()


def check_gradient(backbone: HookedBackbone, index: int, x: Tensor, grid: tuple[int, int]) -> str:
    """Return a reason unless gradient reaches the parameters before the cut, except from a detached branch."""
    before = [backbone.model.get_submodule(name) for name in sorted(backbone.prefixes[index])]
    stem = [p for module in before for p in module.parameters(recurse=False) if p.requires_grad]
    if not stem:
        return ""
    for detached in (False, True):
        final, features = backbone.features(x, [index])
        raw = _map(features[index], Tensor.detach) if detached else features[index]
        size = (int(final.shape[-2]), int(final.shape[-1]))
        patches, tiling = backbone.cut(index, raw, grid, size)
        merged = backbone.merge(backbone.run_patches(index, patches, tiling), tiling, size)
        if merged.requires_grad:
            loss = (merged * torch.randn_like(merged)).sum()
            gradients = torch.autograd.grad(loss, stem, allow_unused=True)
            reaches = any(g is not None and bool(g.abs().sum() > 0) for g in gradients)
        else:
            reaches = False
        if reaches == detached:
            return "a detached branch sends gradient to the stem" if detached else "no gradient reaches the stem"
    return ""


def _take(patches: Any, parts: int, part: int) -> Any:
    return _map(patches, lambda tensor: tensor.chunk(parts)[part])


def _change_first(patches: Any, count: int) -> Any:
    def change(tensor: Tensor) -> Tensor:
        tensor = tensor.clone()
        first = tensor[: len(tensor) // count]
        first += torch.randn_like(first) * first.std()
        return tensor

    return _map(patches, change)


def _map(features: Any, function: Callable[[Tensor], Any]) -> Any:
    if isinstance(features, Tensor):
        return function(features)
    return type(features)(_map(member, function) for member in features)


def _difference(one: Tensor, other: Tensor) -> float:
    if one.numel() == 0:
        return 0.0
    return float((one - other).abs().max() / other.abs().max().clamp(min=1e-12))


def lies_over_the_image(change: Tensor) -> bool:
    """Tell whether a change in the upper right quarter of the image changed that quarter of the map (1,C,h,w) most."""
    height, width = change.shape[-2] // 2, change.shape[-1] // 2
    if height < 1 or width < 1:
        return True
    mean = change.abs().mean(dim=(0, 1))
    halves = (mean[:height], mean[-height:])
    quarters = torch.stack([part.mean() for half in halves for part in (half[:, :width], half[:, -width:])])
    return _second_is_largest(quarters, mixed=3.0)


def _second_is_largest(quarters: Tensor, mixed: float = 1.5) -> bool:
    """Tell whether the second of four changes is the largest, or whether global attention has mixed all of them."""
    return int(quarters.argmax()) == 1 or bool(quarters.max() < mixed * quarters.min())
