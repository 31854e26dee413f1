"""From model, data and settings to the parts of a run that work together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader

from ppl.backbones import freeze_stages
from ppl.data import TaggedImages
from ppl.errors import PPLValueError
from ppl.models import PPLNet
from ppl.models.checkpoint import header_text
from ppl.train.batch_norm import Policy, choose_batch_norm, freeze_batch_norm_affine
from ppl.train.checkpoint import fingerprint
from ppl.train.config import RUNTIME_KEYS, TrainConfig
from ppl.train.launch import make_accelerator
from ppl.train.loaders import TrainBatches, val_batches
from ppl.train.losses import build_loss
from ppl.train.meter import LossMeter
from ppl.train.objective import Objective
from ppl.train.optim import build_optimizer, param_groups
from ppl.train.schedules import Schedule, build_schedule
from ppl.train.steps import Course, Stepper

__all__ = ["Parts", "assemble"]


@dataclass
class Parts:
    """The parts of a run.

    Attributes:
        config: the settings.
        model: the classifier itself, not wrapped.
        average: moving average of its weights (`timm.utils.ModelEmaV3`), if wanted.
        batch_norm: what BatchNorm layers do.
        frozen: modules that keep their weights, and their statistics whatever the other BatchNorm layers do.
        batches: training batches of this process.
        val: validation batches of this process, if there are any.
        schedule: which stage trains when.
        updates: how often in an epoch the schedule is asked.
        stepper: does one optimiser step.
        meter: running means of the losses.
        accelerator: of Hugging Face accelerate.
        identity: everything that decides the loss curve, for comparison when a run is resumed.
    """

    config: TrainConfig
    model: PPLNet
    average: Any
    batch_norm: Policy
    frozen: tuple[nn.Module, ...]
    batches: TrainBatches
    val: DataLoader[Any] | None
    schedule: Schedule
    updates: int
    stepper: Stepper
    meter: LossMeter
    accelerator: Any
    identity: dict[str, Any]

    def stages(self, epoch: int) -> list[int]:
        """The stages that train in an epoch, in order."""
        return sorted({stage for update in range(self.updates) for stage in self.schedule(epoch, update)})

    @property
    def shipped(self) -> PPLNet:
        """The model that is validated and saved: the average if there is one."""
        return self.model if self.average is None else self.average.module


def assemble(
    model: PPLNet,
    train: TaggedImages,
    val: TaggedImages | None,
    config: TrainConfig,
    device: str = "auto",
    batch_norm: Policy | None = None,
) -> Parts:
    """Make the parts of a run, and check that they fit each other.

    Args:
        model: the classifier, to be trained in place.
        train: training images.
        val: validation images, or None.
        config: the settings.
        device: "auto", "cpu", "cuda", "cuda:1", ...
        batch_norm: what BatchNorm layers do in the run that is resumed, whose statistics may have moved since it was
            settled; None settles it now.

    Returns:
        The parts.

    Raises:
        PPLValueError: if settings, model and data do not fit each other.
        PPLTypeError: if the model could not be saved.
    """
    _check(model, train, val, config)
    accelerator = make_accelerator(config.precision, device)
    processes = (accelerator.num_processes, accelerator.process_index)
    _seed((config.seed + processes[1]) % 2**32)

    pin = accelerator.device.type == "cuda"
    batches = TrainBatches(train, config, model.data_config, processes=processes, pin_memory=pin)
    updates = -(-len(batches) // config.accumulate)
    name = _schedule_name(config, model)
    schedule = build_schedule(
        name,
        num_stages=model.num_phases,
        epochs=config.epochs,
        epochs_per_stage=config.epochs_per_stage,
        warmup_epochs=config.warmup_epochs,
    )
    trained = _trained_stages(name, schedule, model.num_phases, config.epochs, updates)

    model.classes = train.classes
    batch_norm = batch_norm or choose_batch_norm(model, config.batch_norm)
    frozen: tuple[nn.Module, ...] = ()
    if config.freeze is not None:
        frozen = freeze_stages(model.backbone, config.freeze, model.config["stages"])
    if config.freeze_bn_affine and batch_norm == "frozen":
        freeze_batch_norm_affine(model)
    if config.grad_checkpointing:
        model.set_grad_checkpointing()
    model.to(accelerator.device)
    if config.channels_last:
        model.to(memory_format=torch.channels_last)
    average = None
    if config.ema_decay is not None:
        from timm.utils import ModelEmaV3

        average = ModelEmaV3(model, decay=config.ema_decay, use_warmup=True)  # a short run must forget its start

    groups = param_groups(
        model.backbone.named_parameters(),
        model.fusion.named_parameters(),
        lr=config.lr,
        weight_decay=config.weight_decay,
        head_lr_mult=config.head_lr_mult,
        bias_lr_mult=config.bias_lr_mult,
        decay_norm_and_bias=config.decay_norm_and_bias,
    )
    optimizer = build_optimizer(config.optimizer, groups, momentum=config.momentum, nesterov=config.nesterov)
    objective = Objective(model, build_loss(config.loss, config.loss_options), config.auxiliary)
    objective.check(trained, config.size)
    if config.compile:
        objective.compile_losses()
    stepper = Stepper(objective, optimizer, accelerator, config, Course(schedule, config, updates), average)

    return Parts(
        config=config,
        model=model,
        average=average,
        batch_norm=batch_norm,
        frozen=frozen,
        batches=batches,
        val=None if val is None else val_batches(val, config, model.data_config, processes=processes, pin_memory=pin),
        schedule=schedule,
        updates=updates,
        stepper=stepper,
        meter=LossMeter(objective.names, accelerator.device),
        accelerator=accelerator,
        identity=_identity(model, train, val, config, processes[0]),
    )


def _schedule_name(config: TrainConfig, model: PPLNet) -> str:
    if model.mode != "progressive" and config.schedule == "progressive":
        return "last"  # its one stage is the last, and epochs_per_stage are for another mode of the same recipe
    if config.schedule != "auto":
        return config.schedule
    return "progressive" if model.mode == "progressive" else "last"


def _trained_stages(name: str, schedule: Schedule, num_stages: int, epochs: int, updates: int) -> list[int]:
    """The stages that a run will train; the last of them is the one that is validated and shipped as the best."""
    trained = {stage for epoch in range(epochs) for update in range(updates) for stage in schedule(epoch, update)}
    if num_stages - 1 not in trained:
        raise PPLValueError(
            f"schedule {name!r} never trains the last of {num_stages} stages in {epochs} epochs of {updates} updates: "
            'lower batch_size or accumulate, give fewer cuts, or take schedule "progressive"'
        )
    return sorted(trained)


def _seed(seed: int) -> None:
    from accelerate.utils import set_seed

    set_seed(seed)


def _check(model: PPLNet, train: TaggedImages, val: TaggedImages | None, config: TrainConfig) -> None:
    if model.num_classes != len(train.classes):
        raise PPLValueError(
            f"the model has {model.num_classes} classes, {train.name} has {len(train.classes)}; "
            f"create the model with num_classes={len(train.classes)}"
        )
    if val is not None and val.classes != train.classes:
        raise PPLValueError(
            f"{val.name} has the classes {val.classes}, {train.name} has {train.classes}; they must agree"
        )
    own = None if model.classes is None else tuple(model.classes)
    if own is not None and own != train.classes and set(own) == set(train.classes):
        raise PPLValueError(
            f"the model's classes are {model.classes}, those of {train.name} are in another order, {train.classes}; "
            "order the data's, or set model.classes=None to learn them anew"
        )
    if val is None and config.patience is not None:
        raise PPLValueError(
            f"patience={config.patience} waits for a better validation mAP, and there are no validation images; "
            "give some, or set patience to null (None)"
        )
    if val is not None and config.patience is not None and not any(sample.labels for sample in val):
        raise PPLValueError(
            f"patience={config.patience} waits for a better validation mAP, and no image of {val.name} has a tag to "
            "score; give tags, or set patience to null (None)"
        )
    header_text(model)
    height, width = model.min_size
    for key, size in (("size", config.size), ("eval_size", config.eval_size or config.size)):
        model.check_input_size(*size)
        if size[0] < height or size[1] < width:
            raise PPLValueError(
                f"{key} {size[0]}x{size[1]} is too small for the model's cuts and grids; use {height}x{width} or more"
            )


def _identity(
    model: PPLNet, train: TaggedImages, val: TaggedImages | None, config: TrainConfig, processes: int
) -> dict[str, Any]:
    identity = {key: value for key, value in config.model_dump().items() if key not in RUNTIME_KEYS}
    identity |= {f"model.{key}": value for key, value in model.config.items()}
    identity["training images"] = fingerprint(train)
    identity["validation images"] = None if val is None else fingerprint(val)
    identity["processes"] = processes
    return identity
