"""One cell of the study: an arm, a data set and a seed; trained on the pool of views, scored on pictures with masks."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from dilated import FastDilated
from features import Group, Pool, Tail, load_network
from torch import Tensor

from ppl.cam import CamResult
from ppl.data import TaggedImages
from ppl.metrics import ConfusionMatrix, ThresholdSweep, mean_average_precision
from ppl.models import PPLNet
from ppl.train.batch_norm import set_train_mode
from ppl.train.losses import multilabel_soft_margin
from ppl.train.objective import Objective
from ppl.train.optim import build_optimizer, param_groups, poly, set_lr
from ppl.train.schedules import build_schedule


@dataclass(frozen=True)
class Arm:
    """What distinguishes one arm from another; everything else is equal."""

    mode: str = "baseline"
    cuts: tuple[str, ...] = ()
    grids: int | tuple[int, ...] = 2
    padding: str = "replicate"
    pooling: str = "average"
    auxiliary: Mapping[str, Any] = field(default_factory=dict)
    schedule: str = "auto"
    warmup: int = 0


@dataclass(frozen=True)
class Budget:
    """Of every arm alike."""

    epochs: int
    lr: float
    batch: int = 16
    weight_decay: float = 0.01
    output_stride: int = 16


def build(arm: Arm, classes: int, weights: Any, output_stride: int) -> PPLNet:
    tail = Tail(load_network(weights, output_stride))
    grids: Any = list(arm.grids) if isinstance(arm.grids, tuple) else arm.grids
    return PPLNet(
        tail,
        classes,
        mode=arm.mode,
        cuts=arm.cuts or None,
        grids=grids,
        stages=tail.stages,
        padding=arm.padding,
        pooling=arm.pooling,
    )


def train(arm: Arm, budget: Budget, pool: Pool, weights: Any, seed: int, tell: Callable[[str], None]) -> PPLNet:
    torch.manual_seed(seed)
    model = build(arm, pool.targets.shape[1], weights, budget.output_stride).to(memory_format=torch.channels_last)
    steps = len(pool.targets) // budget.batch
    schedule = build_schedule(
        ("progressive" if arm.mode == "progressive" else "last") if arm.schedule == "auto" else arm.schedule,
        num_stages=model.num_stages,
        epochs=budget.epochs,
        warmup_epochs=arm.warmup,
    )
    groups = param_groups(
        model.backbone.named_parameters(),
        model.fusion.named_parameters(),
        lr=budget.lr,
        weight_decay=budget.weight_decay,
    )
    optimizer = build_optimizer("adamw", groups)
    objective = Objective(model, multilabel_soft_margin, arm.auxiliary)
    set_train_mode(model, "frozen")
    generator = torch.Generator().manual_seed(seed)
    ramp = torch.ones(())
    # every seed goes through the pool in an order of its own
    views = torch.stack([torch.randperm(len(pool.views), generator=generator) for _ in range(len(pool.targets))])
    for epoch in range(budget.epochs):
        start, losses = time.perf_counter(), []
        order = torch.randperm(len(pool.targets), generator=generator)
        for step in range(steps):
            chosen = order[step * budget.batch : (step + 1) * budget.batch]
            x = pool.views[views[chosen, epoch % views.shape[1]], chosen]
            x = x.contiguous(memory_format=torch.channels_last)
            targets = pool.targets[chosen]
            for stage in schedule(epoch, step):
                objective.set_stage(stage)
                set_lr(optimizer, poly(epoch * steps + step, budget.epochs * steps))
                with torch.autocast("cpu", torch.bfloat16), FastDilated():
                    loss = objective(x, targets, ramp)
                loss[0].backward()
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
                losses.append(loss.detach())
        mean = torch.stack(losses).mean(0).tolist()
        speed = steps * budget.batch / (time.perf_counter() - start)
        tell(f"epoch {epoch + 1}/{budget.epochs} loss {' '.join(f'{value:.3f}' for value in mean)} ({speed:.0f} img/s)")
    model.set_stage(model.num_stages - 1)
    return model.eval()


BRANCHES = ("all", "whole", "patched")
"""What maps can be read from: all branches together, the un-patched one, the patched ones together."""


@torch.inference_mode()
def maps_of(
    model: PPLNet, group: Group, rows: list[Tensor], branches: Sequence[str]
) -> tuple[list[list[CamResult]], Tensor]:
    """CAMs of pictures of one size, as `ppl.cam.generate` makes them but from the front's maps, per branch and picture.

    Returns:
        The results, and the logits (n, K) of all branches together, the mean over scales and mirror images.
    """
    n = len(rows)
    totals: dict[str, list[Any]] = {branch: [0.0] * n for branch in branches}
    logits: list[Tensor] = []
    for maps in group.maps:
        with torch.autocast("cpu", torch.bfloat16):
            parts = model.branch_class_maps(maps.flatten(0, 1).contiguous(memory_format=torch.channels_last))
        stacked = torch.stack([part.float() for part in parts])
        readings = {"all": stacked.sum(0), "whole": stacked[-1], "patched": stacked[:-1].sum(0)}
        logits.append(model.pool(readings["all"]).view(n, 2, -1).mean(1))
        for branch, sums in totals.items():
            pairs = readings[branch].relu().unflatten(0, (n, 2))
            for number, row in enumerate(rows):
                both = pairs[number, 0, row] + pairs[number, 1, row].flip(-1)
                if len(row):
                    sums[number] = sums[number] + F.interpolate(both[None], group.size, mode="bilinear")[0]
    results = [
        [_result(total, row, group.size) for total, row in zip(totals[branch], rows, strict=True)]
        for branch in branches
    ]
    return results, torch.stack(logits).mean(0)


def _result(total: Any, row: Tensor, size: tuple[int, int]) -> CamResult:
    maps = total / (total.amax((1, 2), keepdim=True) + 1e-5) if len(row) else torch.zeros(0, *size)
    return CamResult(maps, row, torch.ones(len(row)), size)


class Tally:
    """Scores of one way to read the maps."""

    def __init__(self, classes: int) -> None:
        self.sweep, self.auto = ThresholdSweep(classes + 1), ConfusionMatrix(classes + 1)

    def update(self, truth: Any, result: CamResult) -> None:
        self.sweep.update(truth, result.maps, result.classes)
        self.auto.update(truth, result.to_mask(background="auto"))

    def compute(self, names: Sequence[str]) -> dict[str, float]:
        best = self.sweep.best()
        found = self.sweep.scores(best)
        counts = self.sweep.confusions()[int((self.sweep.thresholds - best).abs().argmin())].double()
        hits = counts.diagonal()[1:].sum()
        return {
            "miou_auto": 100 * float(self.auto.compute()["miou"]),
            "miou_best": 100 * float(found["miou"]),
            "threshold": best,
            "recall": 100 * float(hits / counts[1:].sum()),
            "precision": 100 * float(hits / counts[:, 1:].sum()),
            **{
                f"iou_{name}": 100 * iou
                for name, iou in zip(("background", *names), found["iou"].tolist(), strict=True)
            },
        }


def score(
    model: PPLNet, groups: Iterable[Group], images: TaggedImages, branches: Sequence[str]
) -> list[dict[str, Any]]:
    """One row per branch, in percent: classification mAP, and mIoU at the best threshold and at "auto"."""
    targets = images.targets()
    tallies = {branch: Tally(len(images.classes)) for branch in branches}
    logits = torch.zeros(len(images), len(images.classes))
    for group in groups:
        rows = [targets[number].nonzero().flatten() for number in group.members]
        results, logits[group.members] = maps_of(model, group, rows, branches)
        for branch, own in zip(branches, results, strict=True):
            for number, result in zip(group.members, own, strict=True):
                tallies[branch].update(images[number].read_mask(), result)
    precision = 100 * float(mean_average_precision(logits, targets))
    return [{"branch": name, "map": precision, **tally.compute(images.classes)} for name, tally in tallies.items()]
