"""The settings of a training run, each with its meaning: the recipe's `train` section, and `fit`'s `config`."""

from __future__ import annotations

import math
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from ppl.errors import PPLValueError
from ppl.train.auxiliary import AUXILIARY
from ppl.train.losses import LOSSES, bind_options, build_loss
from ppl.train.schedules import SCHEDULES

__all__ = ["RUNTIME_KEYS", "TrainConfig"]

RUNTIME_KEYS = frozenset({"num_workers", "save_every", "tensorboard"})
"""Settings that a resumed run may change: they do not touch the loss curve."""


class TrainConfig(BaseModel):
    """How the classifier is trained. The abstract and figures give no settings: every default is ours.

    Example:
        >>> TrainConfig(epochs=6, schedule="progressive").lr
        0.0001
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    # how long, on what
    epochs: int = Field(10, ge=1, description="passes over the training images, all stages together")
    batch_size: int = Field(16, ge=1, description="images per forward pass of each process")
    accumulate: int = Field(1, ge=1, description="batches whose gradients make one optimiser step")
    size: tuple[int, int] = Field((384, 384), description="height and width of the training crops, in pixels")
    resize_long: tuple[int, int] | None = Field(
        None, description="range of the longer side before cropping; null: 5/8 to 5/4 of the crop's longer side"
    )
    hflip: bool = Field(True, description="mirror half of the images")
    # a third of it turns the hues, by half a circle at the most
    jitter: float = Field(
        0.3, ge=0, le=1.5, description="strength of brightness, contrast and saturation changes; 0: none"
    )
    eval_size: tuple[int, int] | None = Field(None, description="height and width for validation; null: as `size`")
    num_workers: int | None = Field(
        None,
        ge=0,
        description="processes that load images; null: one a core, at most 8; 0: the training process itself",
    )
    seed: int = Field(
        0,
        ge=0,
        lt=2**32,
        description="of order, crops and dropout; the same seed, the same curve (on a GPU but for rounding)",
    )

    # patches
    schedule: str = Field(
        "auto",
        description="which stage trains when: " + ", ".join(SCHEDULES) + "; auto: progressive in that mode, else last",
    )
    epochs_per_stage: list[int] | None = Field(
        None, description="epochs of each stage of the progressive schedule, no other's; null: equal shares"
    )
    warmup_epochs: int = Field(0, ge=0, description="epochs at the start as a plain classifier, without patches")

    # losses
    loss: str = Field("multilabel_soft_margin", description="classification loss: " + ", ".join(LOSSES))
    loss_options: dict[str, Any] = Field({}, description="options of that loss, such as label_smoothing of bce")
    auxiliary: dict[str, float | dict[str, Any]] = Field(
        {}, description="further losses and their weights, or {weight: 1.0, option: ...}: " + ", ".join(AUXILIARY)
    )
    auxiliary_ramp: float = Field(
        0.0, ge=0, le=1, description="part of the run over which the weights of further losses grow from 0"
    )

    # optimiser
    optimizer: Literal["adamw", "sgd"] = Field("adamw", description="AdamW, or SGD as most of the field")
    lr: float = Field(1e-4, gt=0, description="learning rate of the backbone at the start")
    head_lr_mult: float = Field(10.0, gt=0, description="factor of the classifier's learning rate")
    bias_lr_mult: float = Field(1.0, gt=0, description="factor of the biases' learning rate; the Caffe recipe has 2")
    weight_decay: float = Field(0.01, ge=0, description="of weights")
    decay_norm_and_bias: bool = Field(False, description="decay the scales of norms and the biases as well")
    momentum: float = Field(0.9, ge=0, lt=1, description="of SGD; published recipes with lr 0.1 ran with about 0")
    nesterov: bool = Field(False, description="Nesterov's momentum, of SGD")
    power: float = Field(0.9, ge=0, description="the learning rate falls as (1 - step/steps)^power; 0: constant")
    warmup_steps: int = Field(0, ge=0, description="optimiser steps over which the learning rate climbs")
    restart_lr: bool = Field(False, description="start the learning rate's fall afresh with every stage of a schedule")
    clip_grad: float | None = Field(None, gt=0, description="largest norm of all gradients together; null: no clipping")

    # model
    batch_norm: Literal["auto", "frozen", "live"] = Field(
        "auto", description="frozen: statistics stay; live: they follow; auto: frozen if they have been learnt before"
    )
    freeze: str | int | None = Field(
        None, description="stage up to which, itself included, the backbone keeps its first weights; null: all learns"
    )
    freeze_bn_affine: bool = Field(False, description="also keep scale and bias of frozen BatchNorm layers")
    ema_decay: float | None = Field(
        None, gt=0, lt=1, description="keep a moving average of the weights, and validate and ship that; null: none"
    )

    # speed and memory
    precision: Literal["no", "bf16", "fp16"] = Field(
        "no", description="mixed precision; bf16 also on CPUs that have it"
    )
    channels_last: bool = Field(True, description="memory layout that most convolutions are fastest in")
    compile: bool = Field(False, description="torch.compile the training step")
    grad_checkpointing: bool = Field(False, description="compute patch branches twice rather than keep them in memory")

    # keeping
    patience: int | None = Field(None, ge=1, description="epochs without a better validation mAP before stopping early")
    save_every: int | None = Field(
        None, ge=1, description="also save the state every so many optimiser steps (of each stage) within an epoch"
    )
    tensorboard: bool = Field(False, description="write TensorBoard event files as well")

    @field_validator("precision", mode="before")
    @classmethod
    def _yaml_no(cls, value: object) -> object:
        return "no" if value is False else value  # what YAML reads in `precision: no`

    @model_validator(mode="after")
    def _check(self) -> TrainConfig:
        if self.schedule != "auto" and self.schedule not in SCHEDULES:
            raise ValueError(f"unknown schedule {self.schedule!r}; choose auto, {', '.join(SCHEDULES)}")
        if self.warmup_epochs >= self.epochs:
            raise ValueError(f"warmup_epochs={self.warmup_epochs} leaves none of {self.epochs} epochs for patches")
        if self.epochs_per_stage is not None and min(self.epochs_per_stage, default=0) < 1:
            raise ValueError(f"epochs_per_stage={self.epochs_per_stage} must give every stage an epoch or more")
        if self.optimizer == "sgd" and self.nesterov and not self.momentum:
            raise ValueError("nesterov needs a momentum above 0, got momentum=0; raise it or set nesterov to false")
        try:
            build_loss(self.loss, self.loss_options)
            for name, value in self.auxiliary.items():
                if name not in AUXILIARY:
                    raise PPLValueError(f"unknown auxiliary loss {name!r}; choose of {', '.join(AUXILIARY)}")
                bind_options(name, AUXILIARY[name], split_weight(name, value)[1])
        except PPLValueError as error:
            raise ValueError(str(error)) from None
        return self


def split_weight(name: str, value: float | dict[str, Any]) -> tuple[float, dict[str, Any]]:
    """Weight and options of an auxiliary loss, from its entry in `TrainConfig.auxiliary`.

    Raises:
        PPLValueError: if the weight is no finite number, or below 0.

    Example:
        >>> split_weight("patches", 4.0), split_weight("patches", {"weight": 0.5, "pool": "max"})
        ((4.0, {}), (0.5, {'pool': 'max'}))
    """
    options = dict(value) if isinstance(value, dict) else {"weight": value}
    given = options.pop("weight", 1.0)
    try:
        weight = float(given)
    except (TypeError, ValueError):
        weight = math.nan
    if not 0 <= weight < math.inf:
        raise PPLValueError(f"the weight of auxiliary loss {name!r} must be a number, 0 or more, got {given!r}")
    return weight, options
