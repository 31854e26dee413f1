"""The identities that cutting promises, measured at one cut of one model."""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ppl.backbones.errors import UnsupportedBackboneError
from ppl.backbones.families import Place
from ppl.backbones.runner import Runner
from ppl.backbones.state import make_dummy, untouched
from ppl.backbones.trace import tensors_of

__all__ = [
    "CutReport",
    "check_gradient",
    "check_place",
    "check_values",
    "faults",
    "in_double",
    "lies_where_it_should",
    "verify",
]

_TOLERANCE = 1e-4


@dataclass(frozen=True)
class CutReport:
    """What was measured at one cut.

    Attributes:
        stage: after which it stands.
        layout: of the stage's output.
        reduction: input pixels per cell there.
        reason: which identity fails and how, empty if none does.
        resume_error: largest difference between resuming and the plain forward, relative to the largest value.
        patch_error: largest influence of a patch on another one, relative likewise.
    """

    stage: str
    layout: str
    reduction: int
    reason: str = ""
    resume_error: float = float("nan")
    patch_error: float = float("nan")


def verify(runner: Runner) -> None:
    """Raise UnsupportedBackboneError unless resuming and patches are right at every cut."""
    for stage, reason in faults(runner).items():
        raise UnsupportedBackboneError(
            f"{type(runner.model).__name__} cannot be cut after {stage!r}: {reason}; "
            "choose a stage that everything after it depends on alone"
        )


def faults(runner: Runner) -> dict[str, str]:
    """Per stage after which an identity fails on a small random image, how it does.

    For models of no family that is known to work; what `check_backbone` tries beyond this takes longer.
    """
    found = _faults(runner)
    if found:
        with suppress(Exception):  # some models cannot compute in double precision
            exact = _faults(in_double(runner))
            found = {stage: reason for stage, reason in found.items() if stage in exact}
    return found


def in_double(runner: Runner) -> Runner:
    """A copy in double precision, to tell a fault from rounding, which grows through deep nets of random weights."""
    twin = copy.deepcopy(runner)
    twin.model.double()
    return twin


def _faults(runner: Runner) -> dict[str, str]:
    found = {}
    with untouched(runner.model), torch.autocast("cpu", enabled=False):
        x = make_dummy(runner.model, runner.trace.probe, 2)
        x = torch.linspace(-2, 2, x.numel(), dtype=torch.float64).sin().to(x).reshape(x.shape) + torch.rand_like(x)
        final, features = runner.features(x, range(len(runner.cuts)))
        for index, stage in enumerate(runner.cuts):
            report = CutReport(stage.name, stage.layout, stage.reduction)
            try:
                report = check_values(runner, index, features[index], final, (1, 2), report, alive=False)
                again, _ = runner.features(x, [])
                if not report.reason and not _difference(again, final) <= _TOLERANCE:
                    report = replace(report, reason="the model keeps something of the dummy image and then differs")
            except Exception as error:  # any: layers say "not this size" in many ways
                text = str(error).strip().partition("\n")[0]
                report = replace(report, reason=f"{type(error).__name__}: {text}")
            if report.reason:
                found[stage.name] = report.reason
    return found


def check_values(
    runner: Runner,
    index: int,
    features: Any,
    final: Tensor,
    grid: tuple[int, int],
    report: CutReport,
    *,
    alive: bool = True,
) -> CutReport:
    """Resuming is the plain forward; the merged map has its size; every patch is computed on its own.

    With `alive`, a change of a patch must also show in its part of the map.
    """
    size = (int(final.shape[-2]), int(final.shape[-1]))
    resumed = runner.resume(index, features, size)
    if resumed.shape != final.shape:
        return replace(report, reason=f"resuming gives {tuple(resumed.shape)} instead of {tuple(final.shape)}")
    report = replace(report, resume_error=_difference(resumed, final))
    if not report.resume_error <= _TOLERANCE:
        return replace(report, reason=f"resuming is not the plain forward (difference {report.resume_error:.1e})")

    patches, place = runner.destruct(index, features, grid, size)
    whole = runner.run_patches(index, patches, place)
    merged = runner.merge(whole, place, size)
    if merged.shape != final.shape:
        return replace(report, reason=f"patches merge to {tuple(merged.shape)} instead of {tuple(final.shape)}")
    # one image without the other
    first, single = _take(patches, 2, 0), replace(place, images=1)
    rows = runner.run_patches(index, first, single)
    errors = [_difference(rows, whole.chunk(2)[0])]
    if place.patches > 1:  # the first patch changed: the others must not notice
        changed = runner.run_patches(index, _change_first(first, place.patches), single)
        errors.append(_difference(changed[1:], rows[1:]))
        if alive and _difference(changed[:1], rows[:1]) <= _TOLERANCE:
            return replace(report, reason="a change of a patch does not change its part of the map")
    if runner.family.positions is None:  # one patch without any other
        last = 2 * place.patches - 1
        alone = replace(place, images=1, grid=(1, 1), whole=place.cells)
        errors.append(_difference(runner.run_patches(index, _take(patches, last + 1, last), alone), whole[-1:]))
    report = replace(report, patch_error=max(errors))
    if not report.patch_error <= _TOLERANCE:
        return replace(report, reason=f"patches are not independent of each other ({report.patch_error:.1e})")
    return report


def check_place(runner: Runner, index: int, features: Any, moved: Any, final: Tensor) -> str:
    """A change in the upper right quarter of the image must change the upper right patch most."""
    size = (int(final.shape[-2]), int(final.shape[-1]))
    if min(size) < 2 or runner.cuts[index].layout == "NCHW":  # a map cannot lie but as it does
        return ""
    before, place = runner.destruct(index, features, 2, size)
    after, _ = runner.destruct(index, moved, 2, size)
    changes = []
    for one, other in zip(tensors_of(before), tensors_of(after), strict=True):
        rows = (other - one).chunk(2)[0].chunk(place.patches)
        changes.append(torch.stack([row.abs().mean() for row in rows]) / _filled(place).to(rows[0]))
    return "" if _right_place(changes[0]) else "cells of the stage do not lie over their pixels"


def _filled(place: Place) -> Tensor:
    """Which part of each patch is map and not padding."""
    sides = []
    for axis in (0, 1):
        starts = torch.arange(place.grid[axis]) * place.cells[axis]
        sides.append((place.whole[axis] - starts).clamp(1, place.cells[axis]) / place.cells[axis])
    return (sides[0][:, None] * sides[1]).flatten()


def check_gradient(runner: Runner, index: int, x: Tensor, grid: tuple[int, int]) -> str:
    """Gradient reaches the parameters before the cut, and a detached branch sends them none."""
    stem = [p for module in runner.prefixes[index] for p in module.parameters(recurse=False) if p.requires_grad]
    if not stem:
        return ""
    for detached in (False, True):
        final, features = runner.features(x, [index])
        raw = _map(features[index], Tensor.detach) if detached else features[index]
        size = (int(final.shape[-2]), int(final.shape[-1]))
        patches, place = runner.destruct(index, raw, grid, size)
        merged = runner.merge(runner.run_patches(index, patches, place), place, size)
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


def lies_where_it_should(change: Tensor) -> bool:
    """Whether a change in the upper right quarter of the image changed that quarter of the map (1,C,h,w) most."""
    height, width = change.shape[-2] // 2, change.shape[-1] // 2
    if height < 1 or width < 1:
        return True
    mean = change.abs().mean(dim=(0, 1))
    halves = (mean[:height], mean[-height:])
    quarters = torch.stack([part.mean() for half in halves for part in (half[:, :width], half[:, -width:])])
    return _right_place(quarters, mixed=3.0)


def _right_place(quarters: Tensor, mixed: float = 1.5) -> bool:
    """Of the changes in four quarters the second is the largest, or global attention has mixed them beyond telling."""
    return int(quarters.argmax()) == 1 or bool(quarters.max() < mixed * quarters.min())
