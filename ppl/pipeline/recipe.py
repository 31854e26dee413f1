"""The recipe: all settings of a run, in sections that are the settings classes of their subjects."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from ppl.cam import CamConfig
from ppl.config import Config
from ppl.data import DatasetConfig
from ppl.models.config import Mode, ModelConfig
from ppl.parallel import check_workers
from ppl.pipeline.presets import DEFAULT_PRESET
from ppl.refine import parse_refiners
from ppl.refine.affinity import AffinityConfig, ConfidentLabelConfig
from ppl.refine.pixels import PixelConfig
from ppl.refine.specs import replace_files
from ppl.segment import SegmentConfig
from ppl.train import TrainConfig

__all__ = ["AffinityRecipe", "CamRecipe", "Recipe"]

DEFAULT_REFINERS = ("crf: deeplab",)
"""The refiner with the largest gain on CAMs of trained networks, see docs/refinement.md."""


class CamRecipe(CamConfig):
    """How CAMs are computed (`ppl.cam.generate`) and masks are cut from them; which weights and which classes."""

    normalize: Literal["max"] = Field("max", description="fixed: files and masks need maps with a maximum of 1")
    size: Literal["image"] = Field("image", description="fixed: files and masks have the size of their image")
    labels: Literal["tags", "predicted"] = Field(
        "tags", description="classes that get a map: the image's tags, or those that the model predicts"
    )
    checkpoint: Literal["best", "last"] = Field("last", description="checkpoint whose maps are computed")


class AffinityRecipe(ConfidentLabelConfig):
    """Affinities for the refiner `random_walk`, learned from confident labels of the training images."""

    kind: Literal["edges", "features"] = Field("edges", description="class boundaries as IRN, or features as PSA")
    train: AffinityConfig = AffinityConfig()


class Recipe(Config):
    """One run: train, CAM, refine, segment, evaluate, report."""

    data: DatasetConfig
    model: ModelConfig = ModelConfig()
    compare: list[Mode] = Field([], description="other modes to train with the same recipe, for the table and pictures")
    train: TrainConfig = TrainConfig()
    cam: CamRecipe = CamRecipe()
    affinity: AffinityRecipe | None = Field(
        None, description="learn affinities for the random walk from the CAMs of the training images; null: do not"
    )
    pixels: PixelConfig = PixelConfig()
    refine: list[Any] = Field(
        list(DEFAULT_REFINERS),
        description="refiners in their order; [] for none; paths in them are relative to the recipe's folder; maps by "
        'sharpened_cam gain more by a narrower CRF, "crf: toco-cam"',
    )
    segment: SegmentConfig | None = Field(
        SegmentConfig(), description="train a segmentation network on the masks of the training images; null: do not"
    )
    faithfulness: int = Field(
        8,
        ge=0,
        description="images of each split whose CAMs are tested by deletion and insertion for the report; 0: none",
    )
    device: str = Field("auto", description='"cpu", "cuda", "cuda:1", "mps"; "auto": the accelerator, or else the CPU')
    num_workers: int = Field(-1, description="processes or threads for work on the CPU; -1: one per core")
    preset: Literal["paper", "propagated"] | None = Field(
        DEFAULT_PRESET,
        description="several keys under one name; propagated: propagated_cam, pixel_classifier and crf: irn; paper: "
        "zeros padding, average pooling, CAMs of all branches; null: no keys",
    )
    plugins: list[str] = Field(
        [], description="modules that register parts of your own, found beside the recipe or on Python's path"
    )

    @property
    def fits_pixels(self) -> bool:
        """Whether a refiner needs a pixel classifier that this run fits."""
        refiners = parse_refiners(self.refine)
        return any(spec.name == "pixel_classifier" and "network" not in spec.options for spec in refiners)

    @property
    def learns_from_cams(self) -> bool:
        """Whether a refiner needs the CAMs of the training images."""
        return self.affinity is not None or self.fits_pixels

    @model_validator(mode="after")
    def _check_affinity(self) -> Recipe:
        if self.affinity is not None and all(refiner.name != "random_walk" for refiner in parse_refiners(self.refine)):
            raise ValueError("affinity is to be learned but no refiner is a random_walk; add one or drop affinity")
        return self

    @model_validator(mode="after")
    def _check_confidence(self) -> Recipe:
        if self.segment is not None and self.segment.reads_confidence and not self.refine:
            raise ValueError("segment.confidence and segment.min_confidence need refined masks: name refiners (refine)")
        return self

    @field_validator("compare", mode="before")
    @classmethod
    def _read_compare(cls, value: Any) -> Any:
        return [] if value is None else value

    @field_validator("refine", mode="before")
    @classmethod
    def _read_refine(cls, value: Any) -> Any:
        if not isinstance(value, list):
            parse_refiners(value)
            return [] if value is None else value
        return replace_files(value, Path.expanduser)

    @field_validator("num_workers")
    @classmethod
    def _check_num_workers(cls, value: int) -> int:
        return check_workers(value)
