"""The settings of a classifier's training: the `train` section of a recipe, and `config` of `fit`."""

from __future__ import annotations

import math
from typing import Any, Literal

from pydantic import Field, model_validator
from typing_extensions import Self

from ppl.engine import EngineConfig
from ppl.errors import PPLValueError
from ppl.train.auxiliary import AUXILIARY
from ppl.train.losses import LOSSES, bind_options, build_loss
from ppl.train.schedules import SCHEDULES

__all__ = ["TrainConfig"]


class TrainConfig(EngineConfig):
    """Settings of a classifier's training. The abstract and figures give none: every default is ours.

    Example:
        >>> TrainConfig(epochs=6, schedule="progressive").lr
        0.0001
    """

    epochs: int = Field(10, ge=1, description="passes over the training images, all phases together")

    # images
    size: tuple[int, int] = Field((384, 384), description="height and width of the training crops, in pixels")
    resize_long: tuple[int, int] | None = Field(
        None, description="range of the longer side before cropping; null: 5/8 to 5/4 of the crop's longer side"
    )
    hflip: bool = Field(True, description="mirror half of the images")
    # the hue changes by a third of the strength, and by half a circle at most
    jitter: float = Field(
        0.3, ge=0, le=1.5, description="strength of random brightness, contrast, saturation and hue; 0: none"
    )

    # phases
    schedule: str = Field(
        "auto",
        description="which phase trains when: " + ", ".join(SCHEDULES) + "; auto: progressive in that mode, else last",
    )
    epochs_per_phase: list[int] | None = Field(
        None, description="epochs of each phase of the progressive schedule; null: equal shares"
    )
    warmup_epochs: int = Field(0, ge=0, description="epochs at the start as a plain classifier, without patches")

    # losses
    loss: str = Field("multilabel_soft_margin", description="classification loss: " + ", ".join(LOSSES))
    loss_options: dict[str, Any] = Field({}, description="options of that loss, such as label_smoothing of bce")
    auxiliary: dict[str, float | dict[str, Any]] = Field(
        {}, description="auxiliary losses and their weights, or {weight: 1.0, option: ...}: " + ", ".join(AUXILIARY)
    )
    auxiliary_ramp: float = Field(
        0.0, ge=0, le=1, description="part of the run over which the weights of auxiliary losses grow from 0"
    )

    # parameter groups and frozen parts
    head_lr_mult: float = Field(10.0, gt=0, description="factor of the classifier's learning rate")
    bias_lr_mult: float = Field(1.0, gt=0, description="factor of the biases' learning rate; the Caffe recipe has 2")
    decay_norm_and_bias: bool = Field(False, description="also decay the scales of norms and the biases, as IRN")
    batch_norm: Literal["auto", "frozen", "live"] = Field(
        "auto",
        description="statistics of BatchNorm layers: frozen, live (they follow the batches), or auto: frozen if they "
        "are pretrained",
    )
    freeze: str | int | None = Field(
        None, description="last stage of the backbone that keeps its first weights; null: all stages train"
    )
    freeze_bn_affine: bool = Field(False, description="also freeze scale and bias of frozen BatchNorm layers")

    # memory
    grad_checkpointing: bool = Field(
        False, description="compute patch branches twice instead of keeping them in memory"
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.warmup_epochs >= self.epochs:
            raise ValueError(f"warmup_epochs={self.warmup_epochs} leaves none of {self.epochs} epochs for patches")
        if self.epochs_per_phase is not None and min(self.epochs_per_phase, default=0) < 1:
            raise ValueError(f"epochs_per_phase={self.epochs_per_phase} must give every phase at least one epoch")
        try:
            if self.schedule != "auto":
                SCHEDULES.find(self.schedule)
            build_loss(self.loss, self.loss_options)
            for name, value in self.auxiliary.items():
                bind_options(name, AUXILIARY.find(name), split_weight(name, value)[1])
        except PPLValueError as error:
            raise ValueError(str(error)) from None
        return self


def split_weight(name: str, value: float | dict[str, Any]) -> tuple[float, dict[str, Any]]:
    """Split an entry of `TrainConfig.auxiliary` into the weight and the options of the loss.

    Raises:
        PPLValueError: if the weight is negative, infinite or no number.

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
