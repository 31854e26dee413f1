"""The story of one training run."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from ppl.data import TaggedImages
from ppl.models import PPLNet, save_model
from ppl.parallel import Advance, progress_bar
from ppl.train.assemble import Parts, assemble
from ppl.train.batch_norm import set_train_mode
from ppl.train.config import TrainConfig
from ppl.train.logs import TensorBoardLog
from ppl.train.meter import check_weights
from ppl.train.state import RunState, read_run, resume_run, save_run
from ppl.train.validation import validate

__all__ = ["TrainSummary", "fit"]


@dataclass(frozen=True)
class TrainSummary:
    """What a run came to.

    Attributes:
        epochs: epochs trained; fewer than asked for if the run stopped early.
        steps: optimiser steps.
        loss: mean training loss of the last epoch.
        best_map: best validation mAP among the epochs that trained the last stage; None without validation images.
        best_epoch: the epoch of it, from 0; the last one without validation images.
        best_path: weights of that epoch, for `ppl.load_model`.
        last_path: weights of the last epoch.
        seconds: time that the epochs took, validation included.
        history: one mapping per epoch, as in `metrics.jsonl`.
    """

    epochs: int
    steps: int
    loss: float
    best_map: float | None
    best_epoch: int
    best_path: Path
    last_path: Path
    seconds: float
    history: list[dict[str, Any]]


def fit(
    model: PPLNet,
    train: TaggedImages,
    val: TaggedImages | None,
    config: TrainConfig,
    out: str | Path,
    *,
    progress: bool = True,
    device: str = "auto",
) -> TrainSummary:
    """Train a classifier on tagged images, or go on with a run that was interrupted.

    The folder gets `metrics.jsonl` (and `.csv`), one line per epoch; `last.safetensors`; `best.safetensors`, of the
    epoch with the best validation mAP among those that trained the last stage; and `state.pt`, from which the same
    call goes on after an interruption of any kind, to the same curve (on a GPU to within rounding, since it adds in no
    fixed order). Validation always scores the last stage's classifier, from which CAMs are read, whichever stage is in
    training. These rules are ours.

    Args:
        model: the classifier. It is trained in place and left with the weights of `last.safetensors`, in eval mode,
            at its last stage; what `freeze` and `grad_checkpointing` changed is put back. Its first weights are the
            caller's: seed torch before creating it.
        train: images with tags.
        val: images for the mAP after every epoch; None leaves it out, and `best` is then `last`.
        config: the settings.
        out: the run's folder, made if missing.
        progress: show a progress bar if standard error is a terminal.
        device: "auto", "cpu", "cuda", "cuda:1", ...

    Returns:
        What the run came to.

    Raises:
        PPLValueError: if the settings do not fit model or data, or the folder holds a run with other settings; the
            message names the keys that differ.
        PPLTypeError: if the model was created with arguments that a checkpoint cannot hold.
        NonFiniteLossError: if the loss becomes NaN or infinite; the last good checkpoint is kept.

    Example:
        >>> import tempfile
        >>> from ppl import create_model
        >>> from ppl.data import make_creatures, read_folder
        >>> folder = tempfile.TemporaryDirectory()
        >>> root = make_creatures(Path(folder.name) / "creatures", train=6, val=2, size=64)
        >>> images = read_folder(root, "train")
        >>> model = create_model("test_resnet", len(images.classes), mode="baseline", pretrained=False)
        >>> config = TrainConfig(epochs=1, batch_size=3, size=(64, 64), num_workers=0)
        >>> summary = fit(model, images, None, config, Path(folder.name) / "run")
        >>> summary.steps, summary.last_path.name
        (2, 'last.safetensors')
        >>> folder.cleanup()
    """
    with _settings_put_back(model):
        return _run(model, train, val, config, Path(out), progress, device)


@contextmanager
def _settings_put_back(model: PPLNet) -> Iterator[None]:
    """What a run changes in a model beside its weights is undone: parameters out of training, checkpointing."""
    trained = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    checkpointing = model.grad_checkpointing
    try:
        yield
    finally:
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(trained[name])
        model.set_grad_checkpointing(checkpointing)


def _run(
    model: PPLNet,
    train: TaggedImages,
    val: TaggedImages | None,
    config: TrainConfig,
    out: Path,
    progress: bool,
    device: str,
) -> TrainSummary:
    state = read_run(out)
    parts = assemble(model, train, val, config, device, None if state is None else state["batch_norm"])
    done = resume_run(out, parts, state)
    del state  # weights and optimiser, once more
    board = TensorBoardLog(out, done.epoch) if config.tensorboard and parts.accelerator.is_main_process else None
    batches_done = done.epoch * parts.updates + done.update
    show = progress and parts.accelerator.is_main_process
    with progress_bar(
        "training", config.epochs * parts.updates, completed=batches_done, unit="batches", show=show
    ) as advance:
        while done.epoch < config.epochs and not done.stopped:
            started = time.perf_counter()
            losses, images = _train_epoch(parts, done, out, advance)
            speed = images * parts.accelerator.num_processes / (time.perf_counter() - started)
            _share_buffers(parts)
            score = None if parts.val is None else validate(parts.shipped, parts.val, parts.accelerator, config)
            line = {**losses, "lr": parts.stepper.lr, "val_map": score, "images_per_second": round(speed, 2)}
            line["seconds"] = round(time.perf_counter() - started, 3)
            improved = done.close_epoch(line, parts.stages(done.epoch), model.num_phases, config.patience)
            _keep(out, parts, done, improved)
            if board is not None:
                board.write(done.history[-1])

    if not (out / "last.safetensors").is_file():  # of a finished run, deleted since
        _save_weights(out, parts, best=done.best_epoch == done.epoch - 1)
    model.load_state_dict(parts.shipped.state_dict())
    model.set_phase(model.num_phases - 1)
    model.eval()
    return TrainSummary(
        epochs=done.epoch,
        steps=done.step,
        loss=done.history[-1]["loss"],
        best_map=done.best_map,
        best_epoch=done.best_epoch,
        best_path=out / "best.safetensors",
        last_path=out / "last.safetensors",
        seconds=sum(line["seconds"] for line in done.history),
        history=done.history,
    )


def _train_epoch(parts: Parts, done: RunState, out: Path, advance: Advance) -> tuple[dict[str, float], int]:
    """Train from where the run stands to the end of the epoch.

    Returns:
        Mean losses of all processes together, and how many images this process took.
    """
    config, title, images = parts.config, done.title(parts.config.epochs), 0
    set_train_mode(parts.model, parts.batch_norm, parts.frozen)
    batches = parts.batches.epoch(done.epoch, start=done.update * config.accumulate)
    stream = map(parts.stepper.to_device, batches)
    while group := list(islice(stream, config.accumulate)):
        for stage in parts.schedule(done.epoch, done.update):
            parts.stepper(group, stage, done.step, done.epoch, parts.meter)
            done.step += 1
        done.update += 1
        images += sum(len(batch.images) for batch in group)
        advance(1, title)
        if config.save_every and done.update % config.save_every == 0 and done.update < parts.updates:
            _check_finite(parts, done)
            save_run(out, parts, done)
    _check_finite(parts, done)
    losses = parts.meter.compute(parts.accelerator.reduce(parts.meter.sums, "sum"))
    parts.meter.reset()
    return losses, images


def _check_finite(parts: Parts, done: RunState) -> None:
    """Nothing that is NaN is validated or saved."""
    parts.meter.check(done.epoch)
    check_weights(parts.model, done.step - 1, done.epoch)


def _keep(out: Path, parts: Parts, done: RunState, improved: bool) -> None:
    """Weights for users first, then the state: a kill between the two only repeats the epoch."""
    _save_weights(out, parts, best=improved)
    save_run(out, parts, done)


def _save_weights(out: Path, parts: Parts, *, best: bool) -> None:
    if parts.accelerator.is_main_process:
        shipped = parts.shipped
        shipped.set_phase(shipped.num_phases - 1)
        for name in ("best", "last") if best else ("last",):
            save_model(shipped, out / f"{name}.safetensors")


@torch.no_grad()
def _share_buffers(parts: Parts) -> None:
    """All processes score what is saved: each has BatchNorm statistics of its own, and the first's go to the file."""
    from accelerate.utils import broadcast

    if parts.accelerator.num_processes > 1:
        for buffer in parts.shipped.buffers():
            if buffer.is_floating_point():
                buffer.copy_(broadcast(buffer.contiguous()))
