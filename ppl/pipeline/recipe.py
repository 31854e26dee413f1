"""A recipe: everything that a run needs to know, in one YAML file, checked before any work begins."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from ppl.cam import CamConfig
from ppl.data import DatasetConfig
from ppl.models.config import Mode, ModelConfig
from ppl.parallel import check_workers
from ppl.refine import parse_refiners
from ppl.refine.affinity import AffinityConfig
from ppl.refine.specs import replace_files
from ppl.train import TrainConfig

__all__ = ["AffinityRecipe", "CamRecipe", "Recipe"]

DEFAULT_REFINE = "crf: deeplab"
"""What gained most on real CAMs under either background rule: see docs/refinement.md."""


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", validate_default=True)


class CamRecipe(CamConfig):
    """How maps are computed and turned into masks (`ppl.cam.CamConfig`), from which weights and for which classes."""

    normalize: Literal["max"] = Field("max", description="files and masks need maps with a maximum of 1")
    size: Literal["image"] = Field("image", description="files and masks have the size of their image")
    labels: Literal["tags", "predicted"] = Field(
        "tags", description="classes drawn: the image's tags, or the model's own"
    )
    checkpoint: Literal["best", "last"] = Field("last", description="weights that the maps are read from")


class AffinityRecipe(_Section):
    """Affinities learned from the CAMs of the training images, for the `random_walk` among the refiners."""

    kind: Literal["edges", "features"] = Field("edges", description="class boundaries as IRN, or features as PSA")
    foreground: float = Field(0.30, gt=0, lt=1, description="background score that a confident foreground beats")
    background: float = Field(0.05, gt=0, lt=1, description="background score that beats every class where it is sure")
    train: AffinityConfig = AffinityConfig()


class Recipe(_Section):
    """One run: train, CAM, refine, evaluate, report."""

    data: DatasetConfig
    model: ModelConfig = ModelConfig()
    compare: list[Mode] = Field([], description="other modes trained with the same recipe, for the table and pictures")
    train: TrainConfig = TrainConfig()
    cam: CamRecipe = CamRecipe()
    affinity: AffinityRecipe | None = Field(
        None, description="learn affinities for the random walk from the training images' CAMs; null: do not"
    )
    refine: list[Any] = Field(
        [DEFAULT_REFINE],
        description="refiners in order; [] for none; files that they name are relative to the recipe's folder; maps by "
        'sharpened_cam gain more by a narrower CRF, "crf: toco-cam"',
    )
    device: str = Field("auto", description='"cpu", "cuda", "cuda:1", "mps"; "auto": the first that is there')
    jobs: int = Field(-1, description="processes or threads for work on the CPU; -1: one a core")

    @model_validator(mode="after")
    def _affinity_is_used(self) -> Recipe:
        if self.affinity is not None and all(spec.name != "random_walk" for spec in parse_refiners(self.refine)):
            raise ValueError("affinity is to be learned but no refiner is a random_walk; add one or drop affinity")
        return self

    @field_validator("compare", mode="before")
    @classmethod
    def _none(cls, value: Any) -> Any:
        return [] if value is None else value

    @field_validator("refine", mode="before")
    @classmethod
    def _known_refiners(cls, value: Any) -> Any:
        if not isinstance(value, list):
            parse_refiners(value)
            return [] if value is None else value
        return replace_files(value, Path.expanduser)

    @field_validator("jobs")
    @classmethod
    def _some_jobs(cls, value: int) -> int:
        return check_workers(value)
