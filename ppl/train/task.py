"""The classifier as a task of the training loop."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ppl.backbones import freeze_stages
from ppl.data import Batch
from ppl.data.pairs import PairImages, TrainingImages
from ppl.engine import Task
from ppl.engine.batch_norm import choose_batch_norm, freeze_batch_norm_affine, set_train_mode
from ppl.engine.batches import Share
from ppl.engine.optimizer import param_groups
from ppl.errors import PPLValueError
from ppl.io import fingerprint
from ppl.models import PPLNet, save_model
from ppl.models.checkpoint import header_text
from ppl.train.config import TrainConfig
from ppl.train.loaders import train_batches, val_batches
from ppl.train.losses import LOSSES, build_loss
from ppl.train.objective import Objective
from ppl.train.schedules import SCHEDULES, build_schedule
from ppl.train.validation import validate

__all__ = ["ClassifierTask"]


class ClassifierTask(Task):
    """Training of a `PPLNet` on tagged images.

    Args:
        model: the classifier, trained in place.
        train: training images.
        val: validation images, or None.
        config: the settings.
        accelerator: from `open_accelerator`.
        choices: the choices of the run that is continued: what BatchNorm layers do, because their statistics may have
            changed since the first start; None for a new run.

    Raises:
        PPLValueError: if settings, model and data do not fit each other.
        PPLTypeError: if the model could not be saved.
    """

    config: TrainConfig
    model: PPLNet
    objective: Objective
    score = "val_mAP"
    greater_is_better = True
    grows = ("training images",)

    def __init__(
        self,
        model: PPLNet,
        train: TrainingImages,
        val: TrainingImages | None,
        config: TrainConfig,
        accelerator: Any,
        choices: Mapping[str, Any] | None = None,
    ) -> None:
        _check(model, train, val, config)
        self.config, self.model = config, model
        share = Share.of(accelerator)
        self.batches = train_batches(train, config, model.data_config, share)
        if val is not None:
            self.val = val_batches(val, config, model.data_config, share)
        name = _schedule_name(config, model)
        self._schedule = build_schedule(
            name,
            num_phases=model.num_phases,
            epochs=config.epochs,
            epochs_per_phase=config.epochs_per_phase,
            warmup_epochs=config.warmup_epochs,
        )
        self._phases = [self._phases_of(epoch) for epoch in range(config.epochs)]
        _check_last_phase(name, self._phases, model.num_phases, self.updates)

        model.classes = train.classes
        self._batch_norm = choices["batch_norm"] if choices else choose_batch_norm(model, config.batch_norm)
        self.choices = {"batch_norm": self._batch_norm}
        self._frozen: tuple[nn.Module, ...] = ()
        if config.freeze is not None:
            self._frozen = freeze_stages(model.backbone, config.freeze, model.config["stages"])
        if config.freeze_bn_affine and self._batch_norm == "frozen":
            freeze_batch_norm_affine(model)
        if config.grad_checkpointing:
            model.set_grad_checkpointing()
        self.objective = Objective(model, build_loss(config.loss, config.loss_options), config.auxiliary)
        self.loss_names = self.objective.names
        self._ramp = torch.ones((), device=accelerator.device)
        self.identity = _identity(model, train, val, config, accelerator.num_processes)

    def phases(self, epoch: int, update: int) -> tuple[int, ...]:
        """Return the phases that the schedule gives to an update."""
        return self._schedule(epoch, update)

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Return weights, biases and norms of backbone and classifier."""
        return param_groups(
            self.model.backbone.named_parameters(),
            self.model.fusion.named_parameters(),
            lr=self.config.lr,
            weight_decay=self.config.weight_decay,
            head_lr_mult=self.config.head_lr_mult,
            bias_lr_mult=self.config.bias_lr_mult,
            decay_norm_and_bias=self.config.decay_norm_and_bias,
        )

    def check(self) -> None:
        """Compute the losses of every phase on a black image."""
        self.objective.check(self._trained_phases(), self.config.size)

    def may_leave_out_parameters(self) -> bool:
        """Tell whether the loss of a phase on a black image does not depend on all trained parameters."""
        return self.objective.leaves_out_parameters(self._trained_phases(), self.config.size)

    def set_train_mode(self) -> None:
        """Put the model in train mode, frozen BatchNorm layers in eval mode."""
        set_train_mode(self.model, self._batch_norm, self._frozen)

    def begin_step(self, phase: int, step: int, total: int) -> None:
        """Choose the phase, and the factor of the auxiliary losses."""
        self.objective.set_phase(phase)
        if self.config.auxiliary_ramp:
            self._ramp.fill_(min(1.0, step / (self.config.auxiliary_ramp * total)))

    def losses(self, objective: nn.Module, batch: Batch) -> Mapping[str, Tensor]:
        """Return the losses of a batch."""
        losses: Mapping[str, Tensor] = objective(batch.images, batch.targets, self._ramp)
        return losses

    def describe_epoch(self, epoch: int) -> dict[str, Any]:
        """Return the phase of an epoch, or the list of its phases."""
        phases = self._phases[epoch]
        return {"phase": phases[0] if len(phases) == 1 else phases}

    def validate(self, model: nn.Module, accelerator: Any) -> dict[str, float]:
        """Return the mAP of the classifier from which CAMs are read."""
        assert isinstance(model, PPLNet) and self.val is not None
        return {self.score: validate(model, self.val, accelerator, self.config.channels_last)}

    def may_be_best(self, epoch: int) -> bool:
        """Tell whether the epoch trains the last phase."""
        return self.model.num_phases - 1 in self._phases[epoch]

    def save(self, model: nn.Module, path: Path) -> None:
        """Write the model at its last phase, for `ppl.load_model`."""
        assert isinstance(model, PPLNet)
        model.set_phase(model.num_phases - 1)
        save_model(model, path)

    def _trained_phases(self) -> list[int]:
        return sorted({phase for phases in self._phases for phase in phases})

    def _phases_of(self, epoch: int) -> list[int]:
        return sorted({phase for update in range(self.updates) for phase in self.phases(epoch, update)})


def _schedule_name(config: TrainConfig, model: PPLNet) -> str:
    if model.mode != "progressive" and config.schedule == "progressive":
        return "last"  # the recipe has settings of several modes; the only phase of this one is the last
    if config.schedule != "auto":
        return config.schedule
    return "progressive" if model.mode == "progressive" else "last"


def _check_last_phase(name: str, phases: list[list[int]], num_phases: int, updates: int) -> None:
    """Refuse a schedule without the last phase: the classifier of that phase is validated and saved."""
    if all(num_phases - 1 not in trained for trained in phases):
        raise PPLValueError(
            f"schedule {name!r} never trains the last of {num_phases} phases in {len(phases)} epochs of {updates} "
            'updates: lower batch_size or accumulate, give fewer cuts, or take schedule "progressive"'
        )


def _check(model: PPLNet, train: TrainingImages, val: TrainingImages | None, config: TrainConfig) -> None:
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
            "put the data's classes in the model's order, or set model.classes=None to train the classifier anew"
        )
    if val is not None and config.patience is not None and not any(sample.labels for sample in val):
        raise PPLValueError(
            f"patience={config.patience} waits for a better val_mAP, and no image of {val.name} has a tag to score; "
            "give tags, or set patience to null (None)"
        )
    header_text(model)
    height, width = model.min_size
    model.check_input_size(*config.size)
    if config.size[0] < height or config.size[1] < width:
        raise PPLValueError(
            f"size {config.size[0]}x{config.size[1]} is too small for the model's cuts and grids; use "
            f"{height}x{width} or more"
        )


def _identity(
    model: PPLNet, train: TrainingImages, val: TrainingImages | None, config: TrainConfig, processes: int
) -> dict[str, Any]:
    identity = config.identity()
    identity |= {f"model.{key}": value for key, value in model.config.items()}
    identity["training images"] = _fingerprint(train)
    identity["validation images"] = None if val is None else _fingerprint(val)
    identity["processes"] = processes
    # a loss or schedule from a plugin is known by the definition as well as by the name
    identity["definition of the loss"] = _definition(LOSSES[config.loss])
    identity["definition of the schedule"] = _definition(SCHEDULES.get(config.schedule))
    return identity


def _definition(part: object) -> str | None:
    """Return module and name of a registered function; None for one of ours."""
    module, name = (str(getattr(part, key, None)) for key in ("__module__", "__qualname__"))
    return None if part is None or module.startswith("ppl.") else f"{module}.{name}"


def _fingerprint(dataset: TrainingImages) -> str:
    if isinstance(dataset, PairImages):  # to read the targets is to decode all images
        return f"{len(dataset)} images, {fingerprint(list(dataset.classes))}"
    content = [list(dataset.classes), [[sample.image_id, list(sample.labels)] for sample in dataset]]
    return f"{len(dataset)} images, {fingerprint(content)}"
