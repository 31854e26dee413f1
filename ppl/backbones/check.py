"""Does a backbone keep what cutting promises? The identities, measured on the model at hand."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

import torch
from torch import nn

from ppl.backbones.families import family_of
from ppl.backbones.identities import (
    CutReport,
    check_gradient,
    check_place,
    check_values,
    faults,
    in_double,
    lies_where_it_should,
)
from ppl.backbones.names import check_timm_name
from ppl.backbones.norms import batch_norms
from ppl.backbones.runner import Runner
from ppl.backbones.stages import find_stage
from ppl.backbones.state import make_dummy
from ppl.backbones.trace import call_backbone, native_size, trace_model, with_size_multiple
from ppl.backbones.variants import is_known
from ppl.errors import PPLError, PPLTypeError
from ppl.layers.grid import Grid, as_grid

__all__ = ["BackboneReport", "check_backbone"]


@dataclass(frozen=True)
class BackboneReport:
    """What `check_backbone` found.

    Attributes:
        name: of the timm model, or of the module's class.
        supported: whether there is a cut at which every identity holds.
        tier: 1 every cut and any image size; 2 every cut, under the conditions in `notes`; 3 some cuts; 0 none.
        cuts: names of the stages after which it can be cut.
        reason: why it, or some of its cuts, cannot be used; empty if all can.
        notes: conditions: a fixed image size or multiples of one, windows, no gradient checkpointing.
        stages: one report per stage that is not the last.
        num_features: channels of the final map.
        stride: input pixels per cell of the final map.
        input_size: (H,W) that was tried.
        grid: of the patches that were tried.
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

    Measured at every cut: resuming from the features is the plain forward; every patch is computed on its own (no
    other patch and no other image matters); the stage runs exactly once; the stitched map has the un-patched map's
    size and lies over the image as it should; gradient reaches the stem, and a detached branch sends none.

    Args:
        name_or_module: a timm model's name, which is built with random weights, or a module, which is copied.
        grid: rows and columns of the patches to try.
        input_size: (H,W) of the images to try; by default a small one, or the model's own if it takes no other.
        stages: dotted names of the stages of a module that does not name them itself.
        cuts: stages to check; all by default.

    Returns:
        The report; print it. A model that cannot be cut is reported, not raised.

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
    """A timm model with random weights that let the identities show: no gate is shut and no layer is all but mute."""
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
    """Statistics of noise for BatchNorm, without which deep networks of random weights fade out."""
    norms = list(batch_norms(model))
    if not norms or family_of(model).refuse:
        return
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 1.0
        norm.train()
    for size in ((128, 128), native_size(model)):
        try:
            call_backbone(model, torch.randn_like(make_dummy(model, size, 2)))
            break
        except Exception:  # any: not the model's size
            continue
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
    """`check_backbone` on a model that may be changed: it gets hooks and eval mode."""
    shape = as_grid(grid)
    model.eval()
    try:
        trace = with_size_multiple(model, trace_model(model, stages, input_size))
        found = trace.stages
        if cuts is None:
            wanted = [index for index, stage in enumerate(found[:-1]) if not stage.refusal]
        else:
            wanted = [find_stage(found, cut) for cut in cuts]
    except PPLError as error:
        return BackboneReport(name, False, 0, (), str(error), grid=shape)

    runner = Runner(model, trace, wanted, padding="zeros", halo=0)
    size = input_size or _size_to_try(runner, shape)
    try:
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.manual_seed(0)
            refused = {} if is_known(model) else faults(runner)  # what construction would say
            reports = _check_cuts(runner, shape, size)
            if any(report.reason for report in reports):
                with suppress(Exception):  # some models cannot compute in double precision
                    exact = _check_cuts(in_double(runner), shape, size)
                    reports = [one if other.reason else other for one, other in zip(reports, exact, strict=True)]
            reports = [replace(report, reason=report.reason or refused.get(report.stage, "")) for report in reports]
    except Exception as error:  # any: models fail in many ways
        return BackboneReport(name, False, 0, (), _line(error), grid=shape)
    shut = [CutReport(s.name, s.layout, s.reduction, s.refusal) for s in found[:-1] if s.refusal and cuts is None]
    order = [stage.name for stage in found]
    reports = sorted([*reports, *shut], key=lambda report: order.index(report.stage))
    usable = tuple(report.stage for report in reports if not report.reason)
    reasons = dict.fromkeys(f"after {report.stage}: {report.reason}" for report in reports if report.reason)
    notes = _notes(runner)
    tier = 0 if not usable else 3 if reasons else 2 if notes else 1
    return BackboneReport(
        name=name,
        supported=bool(usable),
        tier=tier,
        cuts=usable,
        reason="; ".join(reasons),
        notes=notes,
        stages=tuple(reports),
        num_features=trace.final.channels,
        stride=trace.final.reduction,
        input_size=size,
        grid=shape,
    )


def _size_to_try(runner: Runner, grid: tuple[int, int]) -> tuple[int, int]:
    """Small where any size will do: at least two cells of the final map in each patch."""
    native = native_size(runner.model)
    if runner.family.window is not None:
        return grid[0] * native[0], grid[1] * native[1]
    if runner.trace.fixed is not None:
        return runner.trace.fixed
    if max(runner.trace.dummy) > 32:  # convolutions without padding need room
        return native
    height, width = (min(native[axis], max(128, 2 * grid[axis] * runner.trace.final.reduction)) for axis in (0, 1))
    return height, width


def _notes(runner: Runner) -> tuple[str, ...]:
    family = runner.family
    notes = []
    if family.window is not None:
        notes.append(f"patches must be multiples of its windows ({family.window(runner.model)} cells)")
    elif runner.trace.fixed is not None:
        notes.append("fixed image size")
    if runner.trace.multiple > 1:
        notes.append(f"image sides are multiples of {runner.trace.multiple}")
    if not family.replays:
        notes.append("no gradient checkpointing")
    return tuple(notes)


def _check_cuts(runner: Runner, grid: tuple[int, int], size: tuple[int, int]) -> list[CutReport]:
    x = torch.randn_like(make_dummy(runner.model, size, 2))
    corner = x.clone()  # the upper right quarter of the first image differs
    corner[:1, :, : size[0] // 2, size[1] // 2 :] = torch.randn_like(corner[:1, :, : size[0] // 2, size[1] // 2 :])
    with torch.no_grad():
        final, features = runner.features(x, range(len(runner.cuts)))
        other, moved = runner.features(corner, range(len(runner.cuts)))
        placed = runner.trace.final.layout == "NCHW" or lies_where_it_should(other[:1] - final[:1])
        misplaced = "" if placed else "the final map does not lie over the image"
    # gradients are costly: not at each of many alike stages
    deciding = {0, len(runner.cuts) // 2, len(runner.cuts) - 1}
    reports = []
    for index, stage in enumerate(runner.cuts):
        report = CutReport(stage.name, stage.layout, stage.reduction)
        try:
            with torch.no_grad():
                report = check_values(runner, index, features[index], final, grid, report)
                if not report.reason:
                    reason = misplaced or check_place(runner, index, features[index], moved[index], final)
                    report = replace(report, reason=reason)
            if not report.reason and index in deciding:
                report = replace(report, reason=check_gradient(runner, index, x[:1], grid))
        except Exception as error:  # any: a report says what fails
            report = replace(report, reason=_line(error))
        reports.append(report)
    return reports


def _line(error: Exception) -> str:
    text = str(error).strip().splitlines()
    line = text[0] if text else ""
    return line if isinstance(error, PPLError) else f"{type(error).__name__}: {line}"
