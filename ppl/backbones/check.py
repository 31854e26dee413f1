"""Does a backbone keep what cutting promises? The identities, measured on the model at hand."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from ppl.backbones.cut import CutBackbone
from ppl.backbones.data_config import data_config
from ppl.backbones.families import Place, family_of
from ppl.backbones.state import make_dummy
from ppl.backbones.trace import resolve_stages, tensors_of
from ppl.errors import PPLError, PPLTypeError
from ppl.layers.grid import Grid, as_grid

__all__ = ["BackboneReport", "CutReport", "check_backbone"]

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


@dataclass(frozen=True)
class BackboneReport:
    """What `check_backbone` found.

    Attributes:
        name: of the timm model, or of the module's class.
        supported: whether there is a cut at which every identity holds.
        tier: 1 every cut and any image size; 2 every cut, under the conditions in `notes`; 3 some cuts; 0 none.
        cuts: names of the stages after which it can be cut.
        reason: why it, or some of its cuts, cannot be used; empty if all can.
        notes: conditions: a fixed image size, windows, no gradient checkpointing.
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
        input_size: (H,W) of the images to try; by default the model's own, enlarged if its windows need it.
        stages: dotted names of the stages of a module that does not name them itself.
        cuts: stages to check; all by default.

    Returns:
        The report; print it. A model that cannot be cut is reported, not raised.

    Raises:
        PPLTypeError: if it is neither a name nor a module.

    Example:
        >>> check_backbone("test_resnet", input_size=(64, 64)).cuts
        ('act1', 'layer1', 'layer2', 'layer3')
        >>> check_backbone("mixer_s32_224").supported
        False
    """
    shape = as_grid(grid)
    if isinstance(name_or_module, str):
        import timm

        name = name_or_module
        model: nn.Module = timm.create_model(name, pretrained=False, num_classes=0)
        _shake(model)
    elif isinstance(name_or_module, nn.Module):
        name, model = type(name_or_module).__name__, copy.deepcopy(name_or_module)
    else:
        raise PPLTypeError(f"check_backbone takes a timm name or a module, got {type(name_or_module).__name__}")
    model.eval()
    try:
        found = resolve_stages(model, stages)
        wanted = range(len(found) - 1) if cuts is None else cuts
        cutter = CutBackbone(
            model, [i for i in wanted if not isinstance(i, int) or not found[i].refusal], stages=stages
        )
    except PPLError as error:
        return BackboneReport(name, False, 0, (), str(error), grid=shape)

    window = cutter._family.window
    native = data_config(model)["input_size"][1:]
    size = input_size or (tuple(shape[axis] * native[axis] for axis in (0, 1)) if window else tuple(native))
    try:
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.manual_seed(0)
            reports = _check_cuts(cutter, shape, size)
    except (PPLError, RuntimeError, AssertionError) as error:
        return BackboneReport(name, False, 0, (), _line(error), grid=shape)
    refused = [CutReport(s.name, s.layout, s.reduction, s.refusal) for s in found[:-1] if s.refusal and cuts is None]
    order = [stage.name for stage in found]
    reports = sorted([*reports, *refused], key=lambda report: order.index(report.stage))
    usable = tuple(report.stage for report in reports if not report.reason)
    reasons = dict.fromkeys(f"after {report.stage}: {report.reason}" for report in reports if report.reason)
    notes = _notes(cutter)
    tier = 0 if not usable else 3 if reasons else 2 if notes else 1
    return BackboneReport(
        name=name,
        supported=bool(usable),
        tier=tier,
        cuts=usable,
        reason="; ".join(reasons),
        notes=notes,
        stages=tuple(reports),
        num_features=cutter.num_features,
        stride=cutter.stride,
        input_size=size,
        grid=shape,
    )


def _notes(cutter: CutBackbone) -> tuple[str, ...]:
    family = family_of(cutter.model)
    notes = []
    if family.window is not None:
        notes.append(f"patches must be multiples of its windows ({family.window(cutter.model)} cells)")
    elif cutter._trace.fixed is not None:
        notes.append("fixed image size")
    if not family.replays:
        notes.append("no gradient checkpointing")
    return tuple(notes)


def _check_cuts(cutter: CutBackbone, grid: tuple[int, int], size: tuple[int, int]) -> list[CutReport]:
    x = torch.randn_like(make_dummy(cutter.model, size, 2))
    corner = x.clone()  # the upper right quarter of the first image differs
    corner[:1, :, : size[0] // 2, size[1] // 2 :] = torch.randn_like(corner[:1, :, : size[0] // 2, size[1] // 2 :])
    with torch.no_grad():
        final, features = cutter.forward_features(x, range(len(cutter.cuts)))
        other, moved = cutter.forward_features(corner, range(len(cutter.cuts)))
        misplaced = "" if _lies_where_it_should(other[:1] - final[:1]) else "the final map does not lie over the image"
    deciding = {
        0,
        len(cutter.cuts) // 2,
        len(cutter.cuts) - 1,
    }  # gradients are costly: not at each of many alike stages
    reports = []
    for index, stage in enumerate(cutter.cuts):
        report = CutReport(stage.name, stage.layout, stage.reduction)
        try:
            with torch.no_grad():
                report = _check_values(cutter, index, features[index], final, grid, report)
                if not report.reason:
                    reason = misplaced or _check_place(cutter, index, features[index], moved[index], final)
                    report = replace(report, reason=reason)
            if not report.reason and index in deciding:
                report = replace(report, reason=_check_gradient(cutter, index, x[:1], grid))
        except Exception as error:  # any: a report says what fails
            report = replace(report, reason=_line(error))
        reports.append(report)
    return reports


def _check_values(
    cutter: CutBackbone, index: int, features: Any, final: Tensor, grid: tuple[int, int], report: CutReport
) -> CutReport:
    size = (int(final.shape[-2]), int(final.shape[-1]))
    resumed = cutter.resume(index, features, size)
    if resumed.shape != final.shape:
        return replace(report, reason=f"resuming gives {tuple(resumed.shape)} instead of {tuple(final.shape)}")
    report = replace(report, resume_error=_difference(resumed, final))
    if not report.resume_error <= _TOLERANCE:
        return replace(report, reason=f"resuming is not the plain forward (difference {report.resume_error:.1e})")

    merged = cutter.patched(index, features, grid, size)
    if merged.shape != final.shape:
        return replace(report, reason=f"patches merge to {tuple(merged.shape)} instead of {tuple(final.shape)}")
    patches, place = cutter._destruct(index, features, grid, size)
    whole = _rows(cutter, index, patches, place)
    errors = []
    # one image without the other
    errors.append(_difference(_rows(cutter, index, _take(patches, 2, 0), replace(place, images=1)), whole.chunk(2)[0]))
    # the first patch changed: the others must not notice
    changed = _rows(cutter, index, _change_first(patches, 2 * place.patches), place)
    errors.append(_difference(changed[1:], whole[1:]))
    if place.patches > 1 and _difference(changed[:1], whole[:1]) <= _TOLERANCE:
        return replace(report, reason="a change of a patch does not change its part of the map")
    if cutter._family.positions is None:  # one patch without any other
        last = 2 * place.patches - 1
        alone = replace(place, images=1, grid=(1, 1), whole=place.cells)
        errors.append(_difference(_rows(cutter, index, _take(patches, last + 1, last), alone), whole[-1:]))
    report = replace(report, patch_error=max(errors))
    if not report.patch_error <= _TOLERANCE:
        return replace(report, reason=f"patches are not independent of each other ({report.patch_error:.1e})")
    return report


def _check_place(cutter: CutBackbone, index: int, features: Any, moved: Any, final: Tensor) -> str:
    """A change in the upper right quarter of the image must change the upper right patch most."""
    size = (int(final.shape[-2]), int(final.shape[-1]))
    if min(size) < 2:
        return ""
    before, place = cutter._destruct(index, features, 2, size)
    after, _ = cutter._destruct(index, moved, 2, size)
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


def _check_gradient(cutter: CutBackbone, index: int, x: Tensor, grid: tuple[int, int]) -> str:
    stem = [p for module in cutter._prefixes[index] for p in module.parameters(recurse=False) if p.requires_grad]
    if not stem:
        return ""
    for detached in (False, True):
        final, features = cutter.forward_features(x, [index])
        raw = _map(features[index], Tensor.detach) if detached else features[index]
        merged = cutter.patched(index, raw, grid, (int(final.shape[-2]), int(final.shape[-1])))
        if merged.requires_grad:
            loss = (merged * torch.randn_like(merged)).sum()
            gradients = torch.autograd.grad(loss, stem, allow_unused=True)
            reaches = any(g is not None and bool(g.abs().sum() > 0) for g in gradients)
        else:
            reaches = False
        if reaches == detached:
            return "a detached branch sends gradient to the stem" if detached else "no gradient reaches the stem"
    return ""


def _rows(cutter: CutBackbone, index: int, patches: Any, place: Place) -> Tensor:
    tokens = (place.cells[0] // place.stride, place.cells[1] // place.stride)
    return cutter._final_map(cutter._resume(index, patches, place), tokens)


def _take(patches: Any, parts: int, part: int) -> Any:
    return _map(patches, lambda tensor: tensor.chunk(parts)[part])


def _change_first(patches: Any, count: int) -> Any:
    def change(tensor: Tensor) -> Tensor:
        tensor = tensor.clone()
        first = tensor[: len(tensor) // count]
        first += torch.randn_like(first) * first.std()
        return tensor

    return _map(patches, change)


def _map(features: Any, function: Any) -> Any:
    if isinstance(features, Tensor):
        return function(features)
    return type(features)(_map(member, function) for member in features)


def _difference(one: Tensor, other: Tensor) -> float:
    if one.numel() == 0:
        return 0.0
    return float((one - other).abs().max() / other.abs().max().clamp(min=1e-12))


def _lies_where_it_should(change: Tensor) -> bool:
    """Whether a change in the upper right quarter of the image changed that quarter of the map (1,C,h,w) most."""
    height, width = change.shape[-2] // 2, change.shape[-1] // 2
    if height < 1 or width < 1:
        return True
    mean = change.abs().mean(dim=(0, 1))
    halves = (mean[:height], mean[-height:])
    return _right_place(torch.stack([part.mean() for half in halves for part in (half[:, :width], half[:, -width:])]))


def _right_place(quarters: Tensor) -> bool:
    """Of the changes in four quarters the second is the largest, or attention has mixed all of them alike."""
    return int(quarters.argmax()) == 1 or bool(quarters.max() < 1.5 * quarters.min())


def _shake(model: nn.Module) -> None:
    """Random values for parameters that start constant: gates at zero would hide what is behind them."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        for parameter in model.parameters():
            if parameter.is_floating_point() and bool((parameter == parameter.flatten()[0]).all()):
                spread = 0.2 if float(parameter.flatten()[0]) in (0.0, 1.0) else 0.5
                parameter.add_(spread * torch.randn_like(parameter))


def _line(error: Exception) -> str:
    text = str(error).strip().splitlines()
    line = text[0] if text else ""
    return line if isinstance(error, PPLError) else f"{type(error).__name__}: {line}"
