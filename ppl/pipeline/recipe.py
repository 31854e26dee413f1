"""A recipe: everything that a run needs to know, in one YAML file, checked before any work begins."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from ppl.layers.pooling import build_pooling
from ppl.models import create_model
from ppl.parallel import check_workers
from ppl.pipeline.background import parse_background
from ppl.refine import parse_steps
from ppl.refine.affinity import AffinityConfig
from ppl.refine.pipeline import with_files
from ppl.train import TrainConfig

__all__ = ["AffinityRecipe", "CamRecipe", "DataRecipe", "ModelRecipe", "Recipe"]

DEFAULT_REFINE = "crf: deeplab"
"""What gained most on real CAMs under either background rule: see docs/refinement.md."""

Mode = Literal["baseline", "control", "progressive", "explicit"]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", validate_default=True)


class DataRecipe(_Section):
    """Which images, with which tags."""

    root: Path = Field(description="folder of the data set")
    layout: Literal["auto", "folder", "voc", "coco"] = Field("auto", description="how the folder is laid out")
    train: str | None = Field("train", description="split to train on; null: every image")
    val: str | None = Field("val", description="split scored after each epoch; null or missing: none")
    splits: list[str] | None = Field(
        None,
        description="splits for which CAMs and masks are made; null: the val split, or train where there is no val",
    )

    @field_validator("root")
    @classmethod
    def _home(cls, value: Path) -> Path:
        return value.expanduser()


class ModelRecipe(_Section):
    """The classifier that the CAMs are read from (`ppl.create_model`)."""

    backbone: str = Field("resnet50", description="any timm model that `ppl check` supports")
    mode: Mode = Field("progressive", description="how patches are used: figure 2, figure 5, or a control without them")
    cuts: list[str | int] | None = Field(
        None, description="stages or blocks after which to cut; null: the last three stages before the final one"
    )
    grids: int | list[int | tuple[int, int]] = Field(2, description="patches per side, one for all cuts or one a cut")
    padding: Literal["zeros", "replicate", "reflect"] = Field(
        "replicate", description="what convolutions see beyond a patch's border; zeros can keep it from learning"
    )
    halo: int = Field(0, ge=0, description="cells of real context that each patch keeps on every side")
    pooling: str = Field(
        "ngwp",
        description="from class maps to logits: ngwp, in which classes compete for every cell, average (as the paper), "
        'max, "generalised_mean:POWER", "log_sum_exp:SHARPNESS", "ngwp:POWER"',
    )
    pretrained: bool = Field(True, description="start from timm's weights")
    checkpoint_path: Path | None = Field(None, description="start from a file of timm-keyed weights instead")
    output_stride: Literal[8, 16, 32] | None = Field(None, description="stride of the last map, where timm allows it")
    timm: dict[str, Any] = Field({}, description="anything else that timm.create_model takes, as drop_path_rate: 0.1")

    @field_validator("checkpoint_path")
    @classmethod
    def _home(cls, value: Path | None) -> Path | None:
        return None if value is None else value.expanduser()

    @field_validator("pooling")
    @classmethod
    def _known_pooling(cls, value: str) -> str:
        build_pooling(value)
        return value

    @field_validator("timm")
    @classmethod
    def _none_of_our_own(cls, value: dict[str, Any]) -> dict[str, Any]:
        for key in value:
            if key == "num_classes":
                raise ValueError("num_classes follows from the data set; leave it out")
            if key in inspect.signature(create_model).parameters:
                raise ValueError(f"{key} is a key of the recipe itself; write model.{key}")
        if value.get("in_chans", 3) != 3:
            raise ValueError(f"in_chans must be 3, got {value['in_chans']!r}: pictures are read as RGB; leave it out")
        return value


class CamRecipe(_Section):
    """How maps are computed (`ppl.cam.generate`) and turned into masks (`CamResult.to_mask`)."""

    scales: list[Annotated[float, Field(gt=0, allow_inf_nan=False)]] = Field(
        [1.0, 0.5, 1.5, 2.0], min_length=1, description="input scales whose maps are summed"
    )
    flip: bool = Field(True, description="add the mirrored image at every scale")
    method: Literal["cam", "whole", "layercam"] = Field(
        "whole",
        description="maps of the un-patched branch alone, in a single pass, of all branches together (cam), or of the "
        "former sharpened by LayerCAM (layercam)",
    )
    labels: Literal["tags", "predicted"] = Field(
        "tags", description="classes drawn: the image's tags, or the model's own"
    )
    background: float | str = Field(
        "auto", description='score of the background: a number, "auto" (no ground truth used) or "power:ALPHA"'
    )
    batch_size: int | None = Field(
        None, ge=1, description="images in one forward pass; null: as many as a million pixels (16 million on a GPU)"
    )
    amp: bool = Field(
        False, description="mixed precision where the device has it: about twice as fast, maps exact to 2 decimals"
    )
    checkpoint: Literal["best", "last"] = Field("last", description="weights that the maps are read from")

    @field_validator("background")
    @classmethod
    def _known_background(cls, value: float | str) -> float | str:
        parse_background(value)
        return value


class AffinityRecipe(_Section):
    """Affinities learned from the CAMs of the training images, for the `random_walk` among the refiners."""

    kind: Literal["edges", "features"] = Field("edges", description="class boundaries as IRN, or features as PSA")
    foreground: float = Field(0.30, gt=0, lt=1, description="background score that a confident foreground beats")
    background: float = Field(0.05, gt=0, lt=1, description="background score that beats every class where it is sure")
    train: AffinityConfig = AffinityConfig()


class Recipe(_Section):
    """One run: train, CAM, refine, evaluate, report."""

    data: DataRecipe
    model: ModelRecipe = ModelRecipe()
    compare: list[Mode] = Field([], description="other modes trained with the same recipe, for the table and pictures")
    train: TrainConfig = TrainConfig()
    cam: CamRecipe = CamRecipe()
    affinity: AffinityRecipe | None = Field(
        None, description="learn affinities for the random walk from the training images' CAMs; null: do not"
    )
    refine: list[Any] = Field(
        [DEFAULT_REFINE],
        description="steps in order; [] for none; files that they name are relative to the recipe's folder; maps by "
        'layercam gain more by a narrower CRF, "crf: toco-cam"',
    )
    device: str = Field("auto", description='"cpu", "cuda", "cuda:1", "mps"; "auto": the first that is there')
    jobs: int = Field(-1, description="processes or threads for work on the CPU; -1: one a core")

    @model_validator(mode="after")
    def _affinity_is_used(self) -> Recipe:
        if self.affinity is not None and all(step.name != "random_walk" for step in parse_steps(self.refine)):
            raise ValueError("affinity is to be learned but no refine step is a random_walk; add one or drop affinity")
        return self

    @field_validator("compare", mode="before")
    @classmethod
    def _none(cls, value: Any) -> Any:
        return [] if value is None else value

    @field_validator("refine", mode="before")
    @classmethod
    def _known_steps(cls, value: Any) -> Any:
        if not isinstance(value, list):
            parse_steps(value)
            return [] if value is None else value
        return with_files(value, Path.expanduser)

    @field_validator("jobs")
    @classmethod
    def _some_jobs(cls, value: int) -> int:
        return check_workers(value)
