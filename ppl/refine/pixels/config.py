"""The settings of the pixel classifier."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from ppl.config import Config

__all__ = ["PixelConfig"]


class PixelConfig(Config):
    """Settings of `fit_pixel_classifier`. The method is ours; see the page of results on PASCAL VOC.

    Example:
        >>> PixelConfig().refiners
        'crf: irn'
    """

    images: int = Field(1000, ge=1, description="most images to fit, taken at equal distances")
    cells: int = Field(500, ge=1, description="most cells of an image, drawn by chance")
    steps: int = Field(125, ge=1, description="steps of AdamW; many more steps learn the faults of the masks")
    batch_size: int = Field(1024, ge=1, description="cells of a step")
    lr: float = Field(1e-3, gt=0, description="learning rate")
    refiners: Any = Field("crf: irn", description="refiners of the CAMs that are learned from; null: none")
    min_agreement: float = Field(
        0.25,
        ge=-1,
        le=1,
        description="least correlation with masks of images that a fit has not seen; a classifier below is not used",
    )
    seed: int = Field(0, ge=0, description="seed of the cells and of their order")
