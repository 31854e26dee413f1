"""The training loop."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ppl.engine.history import TensorBoardLog, write_history
from ppl.engine.loss_meter import LossMeter, check_weights
from ppl.engine.optimizer import build_optimizer, poly_schedule
from ppl.engine.random_state import random_state, set_random_state
from ppl.engine.record import RunRecord
from ppl.engine.state_file import STATE_NAME, read_state, save_state
from ppl.engine.task import Task
from ppl.errors import PPLValueError
from ppl.parallel import Advance, progress_bar
from ppl.parallel.lock import folder_lock

__all__ = ["TrainSummary", "Trainer"]


@dataclass(frozen=True)
class TrainSummary:
    """The result of a training run.

    Attributes:
        epochs: trained epochs; fewer than asked for if the run stopped early.
        steps: optimizer steps.
        loss: mean training loss of the last epoch.
        best_score: validation score of the best epoch (mAP of a classifier); None without validation.
        best_epoch: the best epoch, from 0; the last one without validation.
        best_path: weights of the best epoch.
        last_path: weights of the last epoch.
        seconds: duration of all epochs, validation included.
        history: one mapping per epoch, the lines of `metrics.jsonl`.
    """

    epochs: int
    steps: int
    loss: float
    best_score: float | None
    best_epoch: int
    best_path: Path
    last_path: Path
    seconds: float
    history: list[dict[str, Any]]


class Trainer:
    """Trains a task: forward, backward, update, validate, save.

    Args:
        task: the task to train.
        accelerator: from `open_accelerator`.

    Raises:
        PPLValueError: if the settings do not fit the task.

    See `Task` for an example.
    """

    def __init__(self, task: Task, accelerator: Any) -> None:
        config = task.config
        if config.patience is not None and task.val is None:
            raise PPLValueError(
                f"patience={config.patience} waits for a better {task.score}, and there are no validation images; "
                "give some, or set patience to null (None)"
            )
        self.task, self.config, self.accelerator = task, config, accelerator
        task.objective.to(accelerator.device)
        if config.channels_last:
            task.objective.to(memory_format=torch.channels_last)
        task.check()
        if accelerator.num_processes > 1:
            accelerator.ddp_handler.find_unused_parameters = task.may_leave_out_parameters()
        self.average = None
        if config.ema_decay is not None:
            from timm.utils import ModelEmaV3

            # with a warm-up of the decay, a short run forgets its first weights
            self.average = ModelEmaV3(task.model, decay=config.ema_decay, use_warmup=True)
        optimizer = build_optimizer(
            config.optimizer, task.parameter_groups(), momentum=config.momentum, nesterov=config.nesterov
        )
        if config.compile:
            task.objective.forward = torch.compile(task.objective.forward)
        self.objective, self.optimizer = accelerator.prepare(task.objective, optimizer)
        self.total_steps = sum(
            len(task.phases(epoch, update)) for epoch in range(task.epochs) for update in range(task.updates)
        )
        self._schedule = poly_schedule(optimizer, self.total_steps, power=config.power, warmup=config.warmup_steps)
        self.meter = LossMeter(task.loss_names, accelerator.device)
        self.record = RunRecord()

    @property
    def model_to_save(self) -> nn.Module:
        """The model that is validated and saved: the moving average if there is one."""
        return self.task.model if self.average is None else self.average.module

    def run(self, out: Path, state: Mapping[str, Any] | None = None, *, progress: bool = True) -> TrainSummary:
        """Train to the end, from the training state in the folder if there is one.

        A finished run goes on if the task has more epochs, and the learning rate falls to 0 at the new end.

        Args:
            out: the folder of the run, made if missing.
            state: the training state of the folder, if the caller has read it.
            progress: show a progress bar if standard error is a terminal.

        Returns:
            The summary; `task.model` has the weights of `last.safetensors`.

        Raises:
            PPLValueError: if the folder holds a run with another identity.
            FolderInUseError: if another process trains in the folder.
            NonFiniteLossError: if the loss or a weight becomes NaN or infinite; the last good checkpoint is kept.
        """
        with folder_lock(out):
            self._resume(out, read_state(out) if state is None else state)
            self._train(out, progress)
        record = self.record
        return TrainSummary(
            epochs=record.epoch,
            steps=record.step,
            loss=record.history[-1]["loss"],
            best_score=record.best_score,
            best_epoch=record.best_epoch,
            best_path=out / "best.safetensors",
            last_path=out / "last.safetensors",
            seconds=sum(line["seconds"] for line in record.history),
            history=record.history,
        )

    def _train(self, out: Path, progress: bool) -> None:
        """Train the epochs that are left, and load the weights of the last epoch into the model."""
        record, main = self.record, self.accelerator.is_main_process
        board = TensorBoardLog(out, record.epoch) if self.config.tensorboard and main else None
        done, total = record.epoch * self.task.updates + record.update, self.task.epochs * self.task.updates
        with progress_bar("training", total, completed=done, unit="updates", show=progress and main) as advance:
            while record.epoch < self.task.epochs and not record.stopped:
                self._train_epoch(out, advance)
                if board is not None:
                    board.write(record.history[-1])
        if not (out / "last.safetensors").is_file():  # the user deleted the weights of a finished run
            self._save_weights(out, best=record.best_epoch == record.epoch - 1)
        self.task.model.load_state_dict(self.model_to_save.state_dict())

    def step(self, batches: Sequence[Any], phase: int, step: int) -> None:
        """Make one optimizer step of one phase on a group of batches, without waiting for the device.

        Args:
            batches: the batches whose gradients are added up, on the device.
            phase: the phase that trains.
            step: the step, from 0; it decides the learning rate.
        """
        self.task.begin_step(phase, step, self.total_steps)
        self._schedule.step_update(step)
        for batch in batches[:-1]:
            with self.accelerator.no_sync(self.objective):
                self._backward(batch, len(batches), step)
        self._backward(batches[-1], len(batches), step)
        if self.config.clip_grad is not None:
            self.accelerator.clip_grad_norm_(self.objective.parameters(), self.config.clip_grad)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.average is not None:
            self.average.update(self.task.model, step)

    def to_device(self, batch: Any) -> Any:
        """Return a batch on the device, images in the memory layout of the run."""
        from accelerate.utils import send_to_device

        batch = send_to_device(batch, self.accelerator.device, non_blocking=True)
        if self.config.channels_last:
            batch = torch.utils._pytree.tree_map(_channels_last, batch)
        return batch

    def _backward(self, batch: Any, count: int, step: int) -> None:
        losses = self.task.losses(self.objective, batch)
        self.accelerator.backward(losses[self.task.loss_names[0]] / count)
        self.meter.update(losses, step)

    def _train_epoch(self, out: Path, advance: Advance) -> None:
        """Train from the position of the run to the end of the epoch, validate, and save."""
        task, record = self.task, self.record
        epoch, started, images = record.epoch, time.perf_counter(), 0
        title = record.title(task.epochs, task.score)
        task.set_train_mode()
        batches = task.batches.epoch(epoch, start=record.update * self.config.accumulate)
        stream = map(self.to_device, batches)
        while group := list(islice(stream, self.config.accumulate)):
            for phase in task.phases(epoch, record.update):
                self.step(group, phase, record.step)
                record.step += 1
            record.update += 1
            images += sum(len(batch[0]) for batch in group)
            advance(1, title)
            every = self.config.save_every
            if every and record.update % every == 0 and record.update < task.updates:
                self._check_finite()
                self._save_state(out)
        self._check_finite()
        losses = self.meter.compute(self.accelerator.reduce(self.meter.sums, "sum"))
        self.meter.reset()
        task.check_epoch(losses)
        seconds = time.perf_counter() - started
        line = {**task.describe_epoch(epoch), **losses, "lr": float(self.optimizer.param_groups[0]["lr"])}
        self._share_buffers()
        line[task.score] = None
        if task.val is not None:
            line |= task.validate(self.model_to_save, self.accelerator)
        line["images_per_second"] = round(images * self.accelerator.num_processes / seconds, 2)
        line["seconds"] = round(time.perf_counter() - started, 3)
        improved = record.close_epoch(
            line,
            line[task.score],
            may_be_best=task.may_be_best(epoch),
            greater_is_better=task.greater_is_better,
            patience=self.config.patience,
        )
        # the weights for users come first: a kill between the two only repeats the epoch
        self._save_weights(out, best=improved)
        self._save_state(out)

    def _check_finite(self) -> None:
        """Refuse NaN before it is validated or saved."""
        self.meter.check(self.record.epoch)
        check_weights(self.task.model, self.record.step - 1, self.record.epoch)

    def _save_weights(self, out: Path, *, best: bool) -> None:
        if self.accelerator.is_main_process:
            for name in ("best", "last") if best else ("last",):
                self.task.save(self.model_to_save, out / f"{name}.safetensors")

    def _save_state(self, out: Path) -> None:
        """Write the state of all processes, and the curves."""
        from accelerate.utils import gather_object

        accelerator = self.accelerator
        own = {"random": random_state(accelerator.device), "meter": self.meter.state_dict()}
        processes = gather_object([own])
        if accelerator.is_main_process:
            state = {
                "identity": dict(self.task.identity),
                "choices": dict(self.task.choices),
                "record": asdict(self.record),
                "model": self.task.model.state_dict(),
                "average": None if self.average is None else self.average.module.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "scaler": None if accelerator.scaler is None else accelerator.scaler.state_dict(),
                "processes": processes,
            }
            save_state(out / STATE_NAME, state)
            write_history(out, self.record.history)
        accelerator.wait_for_everyone()

    def _resume(self, out: Path, state: Mapping[str, Any] | None) -> None:
        """Restore a training state, if there is one."""
        if state is not None:
            longer = self.task.check_state(out, state)
            self.task.model.load_state_dict(state["model"])
            if self.average is not None:
                self.average.module.load_state_dict(state["average"])
            self.optimizer.load_state_dict(state["optimizer"])
            if self.accelerator.scaler is not None:
                self.accelerator.scaler.load_state_dict(state["scaler"])
            # of a training that has ended, the states of fewer processes may be there
            own = state["processes"][min(self.accelerator.process_index, len(state["processes"]) - 1)]
            self.meter.load_state_dict(own["meter"])
            set_random_state(own["random"], self.accelerator.device)
            self.record = RunRecord(**state["record"])
            if longer:
                self._lengthen()
        if self.accelerator.is_main_process:
            # a kill may have come between state and curves; and a folder without write access is found before training
            write_history(out, self.record.history)

    def _lengthen(self) -> None:
        """Let a finished run go on: steps count as if the run had had today's length and images from the start."""
        task, record = self.task, self.record
        record.stopped = False
        record.step = sum(
            len(task.phases(epoch, update)) for epoch in range(record.epoch) for update in range(task.updates)
        )

    @torch.no_grad()
    def _share_buffers(self) -> None:
        """Copy the BatchNorm statistics of the first process to all: they are saved, so all processes score them."""
        from accelerate.utils import broadcast

        if self.accelerator.num_processes > 1:
            for buffer in self.model_to_save.buffers():
                if buffer.is_floating_point():
                    buffer.copy_(broadcast(buffer.contiguous()))


def _channels_last(value: Any) -> Any:
    if isinstance(value, torch.Tensor) and value.ndim == 4:
        return value.contiguous(memory_format=torch.channels_last)
    return value
