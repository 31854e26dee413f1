"""The story of one training run."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from ppl.data import TaggedImages
from ppl.errors import PPLValueError
from ppl.models import PPLNet, save_model
from ppl.train.assemble import Parts, assemble
from ppl.train.batch_norm import set_train_mode
from ppl.train.checkpoint import changed_keys, load_state, rng_state, save_state, set_rng_state
from ppl.train.config import TrainConfig
from ppl.train.launch import progress_bar
from ppl.train.logs import TensorBoardLog, write_history
from ppl.train.meter import check_weights
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
    call goes on after an interruption of any kind, to the same curve. Validation always scores the last stage's
    classifier, from which CAMs are read, whichever stage is in training. The paper gives no rules; these are ours.

    Args:
        model: the classifier. It is trained in place and left with the weights of `last.safetensors`, in eval mode,
            at its last stage. Its first weights are the caller's: seed torch before creating it.
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
    out = Path(out)
    parts = assemble(model, train, val, config, device)
    done = _resume(out, parts)
    board = TensorBoardLog(out, done.epoch) if config.tensorboard and parts.accelerator.is_main_process else None
    batches_done = done.epoch * parts.updates + done.update
    show = progress and parts.accelerator.is_main_process
    with progress_bar(config.epochs * parts.updates, batches_done, show=show) as advance:
        while done.epoch < config.epochs and not done.stopped:
            started, updates = time.perf_counter(), parts.updates - done.update
            losses = _train_epoch(parts, done, out, advance)
            speed = updates * parts.images_per_update / (time.perf_counter() - started)
            score = None if parts.val is None else validate(parts.shipped, parts.val, parts.accelerator, config)
            line = {**losses, "lr": parts.stepper.lr, "val_map": score, "images_per_second": round(speed, 2)}
            line["seconds"] = round(time.perf_counter() - started, 3)
            improved = done.close_epoch(line, parts.schedule(done.epoch, 0), model.num_stages, config.patience)
            _keep(out, parts, done, improved)
            if board is not None:
                board.write(done.history[-1])

    model.load_state_dict(parts.shipped.state_dict())
    model.set_stage(model.num_stages - 1)
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


@dataclass
class _Done:
    """How far a run is: what the checkpoint holds besides tensors."""

    epoch: int = 0
    update: int = 0
    step: int = 0
    best_map: float | None = None
    best_epoch: int = -1
    stopped: bool = False
    history: list[dict[str, Any]] = field(default_factory=list)

    def close_epoch(self, line: dict[str, Any], stages: tuple[int, ...], num_stages: int, patience: int | None) -> bool:
        """Book an epoch; returns whether it is the best so far of those that trained the last stage."""
        stage = stages[0] if len(stages) == 1 else list(stages)
        self.history.append({"epoch": self.epoch, "stage": stage, **line})
        improved = False
        if num_stages - 1 in stages:
            score = line["val_map"]
            unknown = score is None or math.isnan(score)
            improved = unknown or self.best_map is None or score > self.best_map
            if improved:
                self.best_map, self.best_epoch = (None if unknown else score), self.epoch
            self.stopped = patience is not None and self.epoch - self.best_epoch >= patience
        self.epoch, self.update = self.epoch + 1, 0
        return improved


def _train_epoch(parts: Parts, done: _Done, out: Path, advance: Callable[..., None]) -> dict[str, float]:
    """Train from where the run stands to the end of the epoch; mean losses of all processes together."""
    config, title = parts.config, _title(parts.config, done)
    set_train_mode(parts.model, parts.batch_norm)
    batches = parts.batches.epoch(done.epoch, start=done.update * config.accumulate)
    stream = map(parts.stepper.to_device, batches)
    while group := list(islice(stream, config.accumulate)):
        for stage in parts.schedule(done.epoch, done.update):
            parts.stepper(group, stage, done.step, done.epoch, parts.meter)
            done.step += 1
        done.update += 1
        advance(title)
        if config.save_every and done.update % config.save_every == 0 and done.update < parts.updates:
            _check_finite(parts, done)
            _save(out, parts, done)
    _check_finite(parts, done)
    losses = parts.meter.compute(parts.accelerator.reduce(parts.meter.sums, "sum"))
    parts.meter.reset()
    return losses


def _title(config: TrainConfig, done: _Done) -> str:
    """What stands before the progress bar: the epoch under way, and how the one before it ended."""
    title = f"epoch {done.epoch + 1}/{config.epochs}"
    if done.history:
        line = done.history[-1]
        title += (
            f" (loss {line['loss']:.3f}" + ("" if line["val_map"] is None else f", mAP {line['val_map']:.3f}") + ")"
        )
    return title


def _check_finite(parts: Parts, done: _Done) -> None:
    """Nothing that is NaN is validated or saved."""
    parts.meter.check(done.epoch)
    check_weights(parts.model, done.step - 1, done.epoch)


def _keep(out: Path, parts: Parts, done: _Done, improved: bool) -> None:
    """Weights for users first, then the state: a kill between the two only repeats the epoch."""
    if parts.accelerator.is_main_process:
        shipped = parts.shipped
        shipped.set_stage(shipped.num_stages - 1)
        for name, wanted in (("best", improved), ("last", True)):
            if wanted:
                save_model(shipped, out / f"{name}.safetensors")
    _save(out, parts, done)


def _save(out: Path, parts: Parts, done: _Done) -> None:
    from accelerate.utils import gather_object

    accelerator = parts.accelerator
    rngs = gather_object([rng_state(accelerator.device)])
    if accelerator.is_main_process:
        state = {
            "identity": parts.identity,
            "done": asdict(done),
            "batch_norm": parts.batch_norm,
            "model": parts.model.state_dict(),
            "average": None if parts.average is None else parts.average.module.state_dict(),
            "optimizer": parts.stepper.optimizer.state_dict(),
            "scaler": None if accelerator.scaler is None else accelerator.scaler.state_dict(),
            "meter": parts.meter.state_dict(),
            "rng": rngs,
        }
        save_state(out / "state.pt", state)
        write_history(out, done.history)
    accelerator.wait_for_everyone()


def _resume(out: Path, parts: Parts) -> _Done:
    """Put a saved state into the parts, if the folder holds one."""
    path = out / "state.pt"
    if not path.is_file():
        return _Done()
    state = load_state(path)
    changed = changed_keys(state["identity"], parts.identity)
    if changed:
        raise PPLValueError(
            f"{out} holds a run with other settings: {', '.join(changed)}; use another folder, or delete {path.name} "
            "to start afresh"
        )
    parts.batch_norm = state["batch_norm"]
    parts.model.load_state_dict(state["model"])
    if parts.average is not None:
        parts.average.module.load_state_dict(state["average"])
    parts.stepper.optimizer.load_state_dict(state["optimizer"])
    if parts.accelerator.scaler is not None:
        parts.accelerator.scaler.load_state_dict(state["scaler"])
    parts.meter.load_state_dict(state["meter"])
    set_rng_state(state["rng"][parts.accelerator.process_index], parts.accelerator.device)
    done = _Done(**state["done"])
    if parts.accelerator.is_main_process:
        write_history(out, done.history)  # a kill may have come between the state and the curve
    return done
