"""Settings of a data set, shared by `open_dataset`, recipes and commands."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator

from ppl.config import Config

__all__ = ["DatasetConfig"]


class DatasetConfig(Config):
    """Which images, with which tags.

    Example:
        >>> DatasetConfig(root="photos").layout
        'auto'
    """

    root: Path = Field(description="folder of the data set")
    layout: str = Field("auto", description="layout of the folder, see docs/data.md; auto: recognised by its files")
    train: str | None = Field("train", description="split to train on; null: every image")
    val: str | None = Field("val", description="split scored after each epoch; null or missing: none")
    splits: list[str] | None = Field(
        None,
        description="splits for which CAMs and masks are made; null: the val split, or train where there is no val",
    )
    zero: Literal["background", "ignore"] = Field(
        "background", description="meaning of value 0 in masks; ignore: not labelled, and not scored"
    )
    white: Literal["object", "ignore"] | None = Field(
        None, description="meaning of value 255 in masks; object: the only class; null: ignore, if that can be meant"
    )
    untagged: Literal["keep", "drop"] = Field(
        "keep", description="whether images without any tag are used; drop: as the lists of COCO in the field"
    )
    value_range: int | None = Field(
        None, ge=1, le=65535, description="largest value of 16-bit pictures, 4095 for 12 bits; null: 65535"
    )

    @field_validator("root")
    @classmethod
    def _expand_home(cls, value: Path) -> Path:
        return value.expanduser()
