"""The settings of confident labels and of the training of affinities."""

from __future__ import annotations

import math
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator
from typing_extensions import Self

from ppl.config import Config
from ppl.engine import EngineConfig

__all__ = ["AffinityConfig", "ConfidentLabelConfig"]


class ConfidentLabelConfig(Config):
    """Settings of `confident_labels`. The defaults are IRN's (Ahn et al., CVPR 2019).

    ReCAM uses the scores 0.35 and 0.10, AMN 0.45 and 0.15.

    Example:
        >>> ConfidentLabelConfig.checked(foreground=0.1, background=0.2)
        Traceback (most recent call last):
        ppl.errors.PPLValueError: background=0.2 must not be above foreground=0.1
    """

    foreground: float = Field(0.30, ge=0, le=1, description="background score that a confident foreground beats")
    background: float = Field(0.05, ge=0, le=1, description="background score that beats every class where it is sure")
    refiners: Any = Field("crf: irn", description="refiners of both maps of probabilities")

    @model_validator(mode="after")
    def _check_scores(self) -> Self:
        if self.background > self.foreground:
            raise ValueError(f"background={self.background} must not be above foreground={self.foreground}")
        return self


class AffinityConfig(EngineConfig):
    """Settings of an affinity network's training. The defaults are IRN's where IRN states them.

    Example:
        >>> AffinityConfig(epochs=1).lr
        0.1
    """

    epochs: int = Field(3, ge=1, description="passes over the training images")
    batch_size: int = Field(16, ge=1, description="views per forward pass of each process (IRN: 32)")
    optimizer: Literal["adamw", "sgd"] = Field("sgd", description="SGD as IRN, or AdamW")
    lr: float = Field(0.1, gt=0, description="learning rate at the start")
    momentum: float = Field(0.0, ge=0, lt=1, description="momentum of SGD; IRN's released code has effectively none")
    weight_decay: float = Field(1e-4, ge=0, description="weight decay")

    crop: int | None = Field(
        None,
        ge=32,
        description="side of the square views in pixels; null: the longer side of a usual training image, rounded up "
        "to a multiple of 32 and at most 512, which is IRN's",
    )
    scale: tuple[float, float] = Field((0.5, 1.5), description="range of the random resizing")
    radius: int = Field(
        10, ge=2, description="learn from pairs of cells nearer than this; the walk itself uses radius 5"
    )

    @field_validator("scale")
    @classmethod
    def _check_scale(cls, value: tuple[float, float]) -> tuple[float, float]:
        if not 0 < value[0] <= value[1] < math.inf:
            raise ValueError(f"scale must be a range (least, most) of factors above 0, got {value}")
        return value
