"""The settings of a model: the recipe's `model` section and the keyword arguments of `create_model`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, TypeAlias

from pydantic import Field, field_validator

from ppl.config import Config
from ppl.layers.pooling import build_pooling

__all__ = ["Mode", "ModelConfig"]

Mode: TypeAlias = Literal["baseline", "control", "progressive", "explicit"]


class ModelConfig(Config):
    """The classifier from which CAMs are read (`ppl.create_model`).

    Example:
        >>> ModelConfig(backbone="resnet18").mode
        'progressive'
    """

    backbone: str = Field("resnet50", description="name of a timm model that `ppl check` supports")
    mode: Mode = Field(
        "progressive",
        description="use of patches: progressive (figure 2), explicit (figure 5), baseline (none) or control (none, "
        "with as many parameters as progressive)",
    )
    cuts: list[str | int] | None = Field(
        None,
        description="stages or blocks after which the feature map is cut; null: the last three stages before the final "
        "one",
    )
    grids: int | tuple[int, int] | list[int | tuple[int, int]] = Field(
        2, description="rows and columns of patches: an integer for all cuts, or a list with one entry per cut"
    )
    padding: Literal["zeros", "replicate", "reflect"] = Field(
        "replicate",
        description="values that convolutions see beyond the border of a patch; zeros, as the paper's figure draws it, "
        "can keep the network from learning",
    )
    halo: int = Field(0, ge=0, description="cells of real context that each patch keeps on every side")
    pooling: str = Field(
        "average",
        description="from class maps to logits: average (as in the paper), max, generalised_mean:POWER, "
        "log_sum_exp:SHARPNESS or ngwp:POWER (classes and background compete for every cell)",
    )
    pretrained: bool = Field(True, description="start from timm's pretrained weights")
    checkpoint_path: Path | None = Field(None, description="start from a file of weights with timm's keys instead")
    output_stride: Literal[8, 16, 32] | None = Field(
        None, description="stride of the final map, for the families in which timm can lower it; null: the backbone's"
    )
    timm: dict[str, Any] = Field({}, description="further arguments of timm.create_model, such as drop_path_rate: 0.1")

    @field_validator("checkpoint_path")
    @classmethod
    def _expand_home(cls, value: Path | None) -> Path | None:
        return None if value is None else value.expanduser()

    @field_validator("pooling")
    @classmethod
    def _check_pooling(cls, value: str) -> str:
        build_pooling(value)
        return value

    @field_validator("timm")
    @classmethod
    def _check_timm_arguments(cls, value: dict[str, Any]) -> dict[str, Any]:
        for key in value:
            if key == "num_classes":
                raise ValueError("num_classes follows from the data set; leave it out")
            if key in cls.model_fields:
                raise ValueError(f"{key} is a key of the recipe itself; write model.{key}")
        if value.get("in_chans", 3) != 3:
            raise ValueError(f"in_chans must be 3, got {value['in_chans']!r}: pictures are read as RGB; leave it out")
        return value
