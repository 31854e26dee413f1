"""The settings of class activation maps, the only place where their defaults stand."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from ppl.cam.background import parse_background
from ppl.cam.methods.registry import METHODS
from ppl.config import Config

__all__ = ["CamConfig", "MapSize"]

MapSize = Literal["image", "feature"] | tuple[int, int]
"""Size of the maps: "image" for each image's own, "feature" for the model's own map, or (h,w)."""


class CamConfig(Config):
    """How maps are computed (:func:`ppl.cam.generate`) and masks cut from them (:meth:`ppl.cam.CamResult.to_mask`).

    Example:
        >>> CamConfig().scales
        (1.0, 0.5, 1.5, 2.0)
        >>> CamConfig.checked(scales=[0.0])
        Traceback (most recent call last):
        ppl.errors.PPLValueError: scales.0: Input should be greater than 0 (got 0.0)
    """

    scales: tuple[Annotated[float, Field(gt=0)], ...] = Field(
        (1.0, 0.5, 1.5, 2.0), description="input scales whose maps are summed"
    )
    flip: bool = Field(True, description="add the map of the mirrored image at every scale")
    method: str = Field(
        "auto",
        description='"auto": the class activation map (cam) where it is exact, else hirescam; also gradcam, gradcam++, '
        "layercam, sharpened_cam (cam times LayerCAM of a finer layer), propagated_cam (that, averaged over cells of "
        "similar features), attention_rollout, and methods of plugins",
    )
    branch: Literal["unpatched", "all"] = Field(
        "unpatched", description="maps of a PPLNet's un-patched branch alone, in one pass, or of all branches together"
    )
    layer: str | None = Field(None, description="layer that a gradient method reads; null: the last one with a map")
    normalize: Literal["max", "none"] = Field(
        "max", description="max: divide each map by its spatial maximum; none: leave the sum as it is"
    )
    size: MapSize = Field("image", description="size of the maps: image, feature (the model's own map), or [h, w]")
    batch_size: Annotated[int, Field(ge=1)] | None = Field(
        None, description="images in one forward pass; null: as many as a million pixels (16 million on a GPU)"
    )
    amp: bool = Field(
        False, description="mixed precision where the device has it: about twice as fast, maps exact to 2 decimals"
    )
    multi_label: bool | None = Field(
        None,
        description="without tags, predict each class on its own (true) or the best class alone (false); null: true "
        "for a PPLNet, false for other classifiers",
    )
    background: float | str = Field(
        "auto", description='score of the background: a number, "auto" (no ground truth used) or "power:ALPHA"'
    )

    def arguments(self) -> dict[str, Any]:
        """Return the keyword arguments of :func:`ppl.cam.generate`."""
        keys = CamConfig.model_fields.keys() - {"background"}
        return {key: getattr(self, key) for key in sorted(keys)}

    def reading(self) -> dict[str, Any]:
        """Return the keyword arguments of :func:`ppl.cam.check_maps`."""
        return {key: getattr(self, key) for key in ("scales", "method", "branch", "layer")}

    @field_validator("method")
    @classmethod
    def _known_method(cls, value: str) -> str:
        METHODS.find(value)
        return value

    @field_validator("scales")
    @classmethod
    def _some_scales(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if not value:
            raise ValueError("there must be one scale or more, such as [1.0]")
        return value

    @field_validator("size", mode="before")
    @classmethod
    def _size_of_some_cells(cls, value: Any) -> Any:
        pair = isinstance(value, (tuple, list)) and len(value) == 2 and all(isinstance(side, int) for side in value)
        if value not in ("image", "feature") and not (pair and min(value) >= 1):
            raise ValueError(f"size must be 'image', 'feature' or (h,w), got {value!r}")
        return value

    @field_validator("background")
    @classmethod
    def _known_background(cls, value: float | str) -> float | str:
        parse_background(value)
        return value
