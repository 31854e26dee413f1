"""The settings that all training tasks share."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator, model_validator
from typing_extensions import Self

from ppl.config import Config

__all__ = ["RUNTIME_KEYS", "EngineConfig"]

RUNTIME_KEYS = frozenset({"num_workers", "save_every", "tensorboard"})
"""Settings that a resumed run may change, because they do not change the loss curve."""


class EngineConfig(Config):
    """Length, optimizer, precision and checkpoints of a training run.

    Example:
        >>> EngineConfig(epochs=6, precision="bf16").lr
        0.0001
    """

    # length and data
    epochs: int = Field(10, ge=1, description="passes over the training images")
    batch_size: int = Field(16, ge=1, description="images per forward pass of each process")
    accumulate: int = Field(1, ge=1, description="batches whose gradients are added up for one optimizer step")
    num_workers: int | None = Field(
        None,
        ge=0,
        description="processes that read images; null: one per core, at most 8; 0: the training process itself",
    )
    seed: int = Field(
        0,
        ge=0,
        lt=2**32,
        description="seed of the order, the augmentation and dropout; a seed gives one curve (on a GPU up to rounding)",
    )

    # optimizer
    optimizer: Literal["adamw", "sgd"] = Field("adamw", description="AdamW, or SGD as in most of the field")
    lr: float = Field(1e-4, gt=0, description="learning rate of the pretrained weights at the start")
    weight_decay: float = Field(0.01, ge=0, description="weight decay")
    momentum: float = Field(
        0.9, ge=0, lt=1, description="momentum of SGD; published recipes with lr 0.1 ran with about 0"
    )
    nesterov: bool = Field(False, description="use Nesterov's momentum in SGD")
    power: float = Field(0.9, ge=0, description="the learning rate falls as (1 - step/steps)^power; 0: constant")
    warmup_steps: int = Field(
        0, ge=0, description="optimizer steps over which the learning rate climbs linearly from 0"
    )
    clip_grad: float | None = Field(None, gt=0, description="largest norm of all gradients together; null: no limit")
    ema_decay: float | None = Field(
        None, gt=0, lt=1, description="validate and save a moving average of the weights with this decay; null: none"
    )

    # speed and memory
    precision: Literal["no", "bf16", "fp16"] = Field(
        "no", description="mixed precision; bf16 also on CPUs that have bfloat16 instructions"
    )
    channels_last: bool = Field(True, description="use the memory layout in which most convolutions are fastest")
    compile: bool = Field(False, description="compile forward pass and losses with torch.compile")

    # checkpoints and logs
    patience: int | None = Field(
        None, ge=1, description="epochs without a better validation score after which training stops; null: never stop"
    )
    save_every: int | None = Field(
        None, ge=1, description="save the training state after every so many updates within an epoch, too"
    )
    tensorboard: bool = Field(False, description="write TensorBoard event files as well")

    @field_validator("precision", mode="before")
    @classmethod
    def _precision_from_yaml(cls, value: object) -> object:
        return "no" if value is False else value  # YAML reads `precision: no` as false

    @model_validator(mode="after")
    def _check_nesterov(self) -> Self:
        if self.optimizer == "sgd" and self.nesterov and not self.momentum:
            raise ValueError("nesterov needs a momentum above 0, got momentum=0; raise it or set nesterov to false")
        return self

    def identity(self) -> dict[str, Any]:
        """Return the settings that decide the loss curve, for the comparison of a resumed run with its first start."""
        return self.model_dump(mode="json", exclude=set(RUNTIME_KEYS))
