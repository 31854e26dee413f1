"""Measure on a given model whether it can be cut into patches."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import nn

from ppl.backbones.dry_run import inspect_backbone, with_size_multiple
from ppl.backbones.dummy import call_backbone, make_dummy
from ppl.backbones.families import family_of
from ppl.backbones.hooked import HookedBackbone
from ppl.backbones.identities import (
    CutReport,
    check_gradient,
    check_position,
    check_values,
    faults,
    in_double,
    lies_over_the_image,
    size_to_try,
)
from ppl.backbones.image_sizes import native_size
from ppl.backbones.names import check_timm_name
from ppl.backbones.norms import batch_norms
from ppl.backbones.size_errors import attempt, first_line, size_error
from ppl.backbones.stages import find_stage
from ppl.backbones.timm_support import is_tested
from ppl.errors import PPLError, PPLTypeError
from ppl.layers.grid import Grid, as_grid

__all__ = ["BackboneReport", "check_backbone"]


@dataclass(frozen=True)
class BackboneReport:
    """The result of `check_backbone`.

    Attributes:
        name: name of the timm model, or of the module's class.
        supported: whether every identity holds at one cut or more.
        tier: 1 every cut and any image size; 2 every cut, under the conditions in `notes`; 3 some cuts; 0 none.
        cuts: names of the stages after which the model can be cut.
        reason: why the model, or some of its cuts, cannot be used; empty if all can.
        notes: conditions: a fixed image size, multiples of a number, windows.
        stages: one report per stage except the last.
        num_features: channels of the final map.
        stride: input pixels per cell of the final map.
        input_size: (H,W) of the images of the check.
        grid: rows and columns of patches of the check.
    """

    name: str
    supported: bool
    tier: int
    cuts: tuple[str, ...]
    reason: str = ""
    notes: tuple[str, ...] = ()
    stages: tuple[CutReport, ...] = ()
    num_features: int = 0
    stride: int = 0
    input_size: tuple[int, int] = (0, 0)
    grid: tuple[int, int] = (2, 2)

    def __str__(self) -> str:
        if not self.stages:
            return f"{self.name}: refused. {self.reason}"
        size, grid = ("x".join(str(side) for side in pair) for pair in (self.input_size, self.grid))
        usable = f"{len(self.cuts)} of {len(self.stages)} cuts usable ({grid} patches of {size} images)"
        lines = [f"{self.name}: tier {self.tier}, {usable}, final map {self.num_features} channels /{self.stride}"]
        for cut in self.stages:
            verdict = cut.reason or f"ok (resume {cut.resume_error:.0e}, between patches {cut.patch_error:.0e})"
            lines.append(f"  {cut.stage:<24} {cut.layout:<4} /{cut.reduction:<3} {verdict}")
        return "\n".join(lines + [f"  note: {note}" for note in self.notes])


def check_backbone(
    name_or_module: str | nn.Module,
    grid: Grid = 2,
    input_size: tuple[int, int] | None = None,
    *,
    stages: Sequence[str] | None = None,
    cuts: Sequence[str | int] | None = None,
) -> BackboneReport:
    """Check that a backbone can be cut into patches, at each of its stages.

    Measured at every cut: resuming from the features equals the plain forward; every patch is independent of all other
    patches and images; the stage runs exactly once; the merged map has the un-patched map's size and position;
    gradient reaches the stem, except from a detached branch.

    Args:
        name_or_module: the name of a timm model, which is built with random weights, or a module, which is copied.
        grid: rows and columns of patches.
        input_size: (H,W) of the images; by default a small size, or the model's own if it takes no other.
        stages: dotted names of the stages of a module without `feature_info`.
        cuts: stages to check; all by default.

    Returns:
        The report; print it. A model that cannot be cut gives a report, not an error.

    Raises:
        PPLValueError: if timm has no model of that name; the message holds near ones.
        PPLTypeError: if it is neither a name nor a module.

    Example:
        >>> check_backbone("test_resnet", input_size=(64, 64)).cuts
        ('act1', 'layer1', 'layer2', 'layer3')
        >>> check_backbone("mixer_s32_224").supported
        False
    """
    if isinstance(name_or_module, str):
        model = random_model(name_or_module)
        return check_model(name_or_module, model, grid, input_size, stages=stages, cuts=cuts)
    if isinstance(name_or_module, nn.Module):
        model = copy.deepcopy(name_or_module)
        return check_model(type(name_or_module).__name__, model, grid, input_size, stages=stages, cuts=cuts)
    raise PPLTypeError(f"check_backbone takes a timm name or a module, got {type(name_or_module).__name__}")


def random_model(name: str) -> nn.Module:
    """Build a timm model with random weights that show faults: no gate is zero, no layer close to zero."""
    import timm

    check_timm_name(name)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        model: nn.Module = timm.create_model(name, pretrained=False, num_classes=0)
        for key, parameter in model.named_parameters():
            if not parameter.is_floating_point():
                continue
            first = float(parameter.flatten()[0])
            if bool((parameter == first).all()):
                spread = 0.02 if key.endswith("bias") else 0.2 if first in (0.0, 1.0) else 0.5
                parameter.add_(spread * torch.randn_like(parameter))
            elif parameter.ndim in (2, 4) and not key.endswith(("embed", "token")):
                usual = parameter[0].numel() ** -0.5
                parameter.mul_(max(1.0, usual / max(float(parameter.std()), 1e-12)))
        _fill_statistics(model)
    return model.eval()


def _fill_statistics(model: nn.Module) -> None:
    """Fill BatchNorm with statistics of noise; without them deep networks of random weights fade to zero."""
    norms = list(batch_norms(model))
    if not norms or family_of(model).refuse:
        return
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 1.0
        norm.train()
    for size in ((128, 128), native_size(model)):
        if size_error(lambda: call_backbone(model, torch.randn_like(make_dummy(model, size, 2)))) is None:  # noqa: B023
            break
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


def check_model(
    name: str,
    model: nn.Module,
    grid: Grid = 2,
    input_size: tuple[int, int] | None = None,
    *,
    stages: Sequence[str] | None = None,
    cuts: Sequence[str | int] | None = None,
) -> BackboneReport:
    """Run `check_backbone` on a model that may be changed: hooks are added, and eval mode is set."""
    shape = as_grid(grid)
    model.eval()
    try:
        info = with_size_multiple(model, inspect_backbone(model, stages, input_size))
        found = info.stages
        if cuts is None:
            wanted = [index for index, stage in enumerate(found[:-1]) if not stage.refusal]
        else:
            wanted = [find_stage(found, cut) for cut in cuts]
    except PPLError as error:
        return BackboneReport(name, False, 0, (), str(error), grid=shape)

    backbone = HookedBackbone(model, info, wanted, padding="zeros", halo=0)
    size = input_size or _roomy_size(backbone, shape)
    reports, failure = attempt(lambda: _reports(backbone, shape, size))
    if reports is None:
        return BackboneReport(name, False, 0, (), first_line(failure), grid=shape)
    shut = [CutReport(s.name, s.layout, s.reduction, s.refusal) for s in found[:-1] if s.refusal and cuts is None]
    order = [stage.name for stage in found]
    reports = sorted([*reports, *shut], key=lambda report: order.index(report.stage))
    usable = tuple(report.stage for report in reports if not report.reason)
    reasons = dict.fromkeys(f"after {report.stage}: {report.reason}" for report in reports if report.reason)
    notes = _notes(backbone)
    tier = 0 if not usable else 3 if reasons else 2 if notes else 1
    return BackboneReport(
        name=name,
        supported=bool(usable),
        tier=tier,
        cuts=usable,
        reason="; ".join(reasons),
        notes=notes,
        stages=tuple(reports),
        num_features=info.final.channels,
        stride=info.final.reduction,
        input_size=size,
        grid=shape,
    )


def _reports(backbone: HookedBackbone, grid: tuple[int, int], size: tuple[int, int]) -> list[CutReport]:
    """Measure every cut; a cut that fails in single and not in double precision is rounding."""
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(0)
        refused = {} if is_tested(backbone.model) else faults(backbone)  # as construction of a CutBackbone does
        reports = _check_cuts(backbone, grid, size)
        if any(report.reason for report in reports):
            exact, _ = attempt(lambda: _check_cuts(in_double(backbone), grid, size))
            if exact is not None:  # Some models cannot compute in double precision.
                reports = [one if other.reason else other for one, other in zip(reports, exact, strict=True)]
        return [replace(report, reason=report.reason or refused.get(report.stage, "")) for report in reports]


def _roomy_size(backbone: HookedBackbone, grid: tuple[int, int]) -> tuple[int, int]:
    """Return a small image size with at least two cells of the final map in each patch."""
    info, native = backbone.info, native_size(backbone.model)
    if backbone.family.window is not None or info.fixed is not None:
        return size_to_try(backbone, grid)
    if max(info.dummy) > 32:  # Convolutions without padding need room.
        return native
    height, width = (min(native[axis], max(128, 2 * grid[axis] * info.final.reduction)) for axis in (0, 1))
    return height, width


def _notes(backbone: HookedBackbone) -> tuple[str, ...]:
    family = backbone.family
    notes = []
    if family.window is not None:
        notes.append(f"patches must be multiples of its windows ({family.window(backbone.model)} cells)")
    elif backbone.info.fixed is not None:
        notes.append("fixed image size")
    if backbone.info.multiple > 1:
        notes.append(f"image sides are multiples of {backbone.info.multiple}")
    return tuple(notes)


def _check_cuts(backbone: HookedBackbone, grid: tuple[int, int], size: tuple[int, int]) -> list[CutReport]:
    x = torch.randn_like(make_dummy(backbone.model, size, 2))
    corner = x.clone()  # the upper right quarter of the first image differs
    corner[:1, :, : size[0] // 2, size[1] // 2 :] = torch.randn_like(corner[:1, :, : size[0] // 2, size[1] // 2 :])
    with torch.no_grad():
        final, features = backbone.features(x, range(len(backbone.cuts)))
        other, moved = backbone.features(corner, range(len(backbone.cuts)))
        placed = backbone.info.final.layout == "NCHW" or lies_over_the_image(other[:1] - final[:1])
        misplaced = "" if placed else "the final map does not lie over the image"
    # Gradients are slow: three of many similar stages.
    deciding = {0, len(backbone.cuts) // 2, len(backbone.cuts) - 1}

    def check(index: int, report: CutReport) -> CutReport:
        with torch.no_grad():
            report = check_values(backbone, index, features[index], final, grid, report)
            if not report.reason:
                reason = misplaced or check_position(backbone, index, features[index], moved[index], final)
                report = replace(report, reason=reason)
        if not report.reason and index in deciding:
            report = replace(report, reason=check_gradient(backbone, index, x[:1], grid))
        return report

    reports = []
    for index, stage in enumerate(backbone.cuts):
        empty = CutReport(stage.name, stage.layout, stage.reduction)
        report, error = attempt(partial(check, index, empty))
        reports.append(report or replace(empty, reason=first_line(error)))
    return reports
