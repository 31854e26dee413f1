"""One optimiser step, and where in the run it stands."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from ppl.data import Batch
from ppl.train.config import TrainConfig
from ppl.train.meter import LossMeter
from ppl.train.objective import Objective
from ppl.train.optim import poly, set_lr
from ppl.train.schedules import Schedule

__all__ = ["Course", "Stepper"]


class Course:
    """The optimiser steps of a whole run: how many, and which learning rate at each.

    Args:
        schedule: `(epoch, batch) -> stages`.
        config: epochs and the course of the learning rate.
        updates: batches per epoch that the schedule is asked about (batches that are accumulated count as one).

    Example:
        >>> from ppl.train.schedules import build_schedule
        >>> schedule = build_schedule("progressive", num_stages=2, epochs=4)
        >>> course = Course(schedule, TrainConfig(epochs=4, restart_lr=True), updates=5)
        >>> course.total, course.factor(0, 0), course.factor(10, 2)
        (20, 1.0, 1.0)
    """

    def __init__(self, schedule: Schedule, config: TrainConfig, updates: int) -> None:
        steps = [sum(len(schedule(epoch, update)) for update in range(updates)) for epoch in range(config.epochs)]
        self.total = sum(steps)
        self._power, self._warmup = config.power, config.warmup_steps
        # (first step, steps) of the fall of the learning rate that each epoch is part of
        falls: list[list[int]] = [[0, 0]]
        self._falls: list[list[int]] = []
        for epoch, count in enumerate(steps):
            if config.restart_lr and epoch and schedule(epoch, 0) != schedule(epoch - 1, 0):
                falls.append([sum(steps[:epoch]), 0])
            falls[-1][1] += count
            self._falls.append(falls[-1])

    def factor(self, step: int, epoch: int) -> float:
        """By what the learning rates are multiplied at an optimiser step of an epoch."""
        start, steps = self._falls[epoch]
        return poly(step - start, steps, power=self._power, warmup=self._warmup if start == 0 else 0)


class Stepper:
    """Forward, backward and update on one or more batches, without waiting for the device.

    Args:
        objective: model and losses.
        optimizer: of the model's parameters.
        accelerator: of Hugging Face accelerate.
        config: clipping, memory layout, ramp of further losses.
        course: the learning rate.
        average: moving average of the weights, `timm.utils.ModelEmaV3`, if wanted.
    """

    def __init__(
        self,
        objective: Objective,
        optimizer: torch.optim.Optimizer,
        accelerator: Any,
        config: TrainConfig,
        course: Course,
        average: Any = None,
    ) -> None:
        self.raw = objective
        self.objective, self.optimizer = accelerator.prepare(objective, optimizer)
        self.accelerator, self.config, self.course, self.average = accelerator, config, course, average
        self.ramp = torch.ones((), device=accelerator.device)

    @property
    def lr(self) -> float:
        """Learning rate of the first group at the last step."""
        return float(self.optimizer.param_groups[0]["lr"])

    def __call__(self, batches: Sequence[Batch], stage: int, step: int, epoch: int, meter: LossMeter) -> None:
        """One optimiser step of one stage on the batches together."""
        self.raw.set_stage(stage)
        set_lr(self.optimizer, self.course.factor(step, epoch))
        if self.config.auxiliary_ramp:
            self.ramp.fill_(min(1.0, step / (self.config.auxiliary_ramp * self.course.total)))
        for batch in batches[:-1]:
            with self.accelerator.no_sync(self.objective):
                self._backward(batch, len(batches), step, meter)
        self._backward(batches[-1], len(batches), step, meter)
        if self.config.clip_grad is not None:
            self.accelerator.clip_grad_norm_(self.objective.parameters(), self.config.clip_grad)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.average is not None:
            self.average.update(self.raw.model, step)

    def to_device(self, batch: Batch) -> Batch:
        """The batch where the model is, in the memory layout of the run."""
        images = batch.images.to(self.accelerator.device, non_blocking=True)
        if self.config.channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        return batch._replace(images=images, targets=batch.targets.to(self.accelerator.device, non_blocking=True))

    def _backward(self, batch: Batch, count: int, step: int, meter: LossMeter) -> None:
        losses = self.objective(batch.images, batch.targets, self.ramp)
        self.accelerator.backward(losses[0] / count)
        meter.update(losses, step)
