"""One cell of the study: an arm, a data set and a seed, trained on the pool of views."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from dilated import fast_dilated
from features import Pool, Tail, autocast, load_network

from ppl.engine.batch_norm import set_train_mode
from ppl.engine.optimizer import build_optimizer, param_groups, poly_schedule
from ppl.models import PPLNet
from ppl.train.losses import multilabel_soft_margin
from ppl.train.objective import Objective
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
    auxiliary_ramp: float = 0.0
    schedule: str = "auto"
    warmup: int = 0
    head_lr_mult: float = 10.0


@dataclass(frozen=True)
class Budget:
    """Of every arm alike."""

    epochs: int
    lr: float
    batch: int = 16
    weight_decay: float = 0.01
    output_stride: int = 16
    optimizer: Literal["adamw", "sgd"] = "adamw"


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


def train(
    arm: Arm,
    budget: Budget,
    pool: Pool,
    weights: Any,
    seed: int,
    tell: Callable[[str], None],
    device: torch.device,
    keep: Callable[[PPLNet, int], None] = lambda model, epoch: None,
) -> PPLNet:
    torch.manual_seed(seed)
    model = build(arm, pool.targets.shape[1], weights, budget.output_stride)
    model.to(device, memory_format=torch.channels_last)
    steps = len(pool.targets) // budget.batch
    schedule = build_schedule(
        ("progressive" if arm.mode == "progressive" else "last") if arm.schedule == "auto" else arm.schedule,
        num_phases=model.num_phases,
        epochs=budget.epochs,
        warmup_epochs=arm.warmup,
    )
    groups = param_groups(
        model.backbone.named_parameters(),
        model.fusion.named_parameters(),
        lr=budget.lr,
        weight_decay=budget.weight_decay,
        head_lr_mult=arm.head_lr_mult,
    )
    optimizer = build_optimizer(budget.optimizer, groups)
    rates = poly_schedule(optimizer, budget.epochs * steps)
    objective = Objective(model, multilabel_soft_margin, arm.auxiliary)
    set_train_mode(model, "frozen")
    generator = torch.Generator().manual_seed(seed)
    rising = arm.auxiliary_ramp * budget.epochs * steps
    # every seed goes through the pool in an order of its own
    views = torch.stack([torch.randperm(len(pool.views), generator=generator) for _ in range(len(pool.targets))])
    for epoch in range(budget.epochs):
        start, losses = time.perf_counter(), []
        order = torch.randperm(len(pool.targets), generator=generator)
        for step in range(steps):
            chosen = order[step * budget.batch : (step + 1) * budget.batch]
            x = pool.views[views[chosen, epoch % views.shape[1]], chosen]
            x = x.to(device).float().contiguous(memory_format=torch.channels_last)
            targets = pool.targets[chosen].to(device)
            for phase in schedule(epoch, step):
                objective.set_phase(phase)
                rates.step_update(epoch * steps + step)
                ramp = torch.tensor(min(1.0, (epoch * steps + step) / rising) if rising else 1.0, device=device)
                with autocast(device), fast_dilated(device):
                    loss = objective(x, targets, ramp)
                loss["loss"].backward()
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
                losses.append(torch.stack([value.detach() for value in loss.values()]))
        mean = torch.stack(losses).mean(0).tolist()
        speed = steps * budget.batch / (time.perf_counter() - start)
        tell(f"epoch {epoch + 1}/{budget.epochs} loss {' '.join(f'{value:.3f}' for value in mean)} ({speed:.0f} img/s)")
        keep(model, epoch + 1)
    model.set_phase(model.num_phases - 1)
    return model.eval()
