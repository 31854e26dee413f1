"""A random walk between all cells of an image that look alike to a frozen pretrained backbone."""

from __future__ import annotations

import math
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from pydantic import AfterValidator, Field
from torch import Tensor, nn

from ppl.backbones import data_config
from ppl.cam.background import parse_background
from ppl.cam.config import CamConfig
from ppl.cam.probabilities import maps_to_probs
from ppl.cam.propagation import propagate
from ppl.errors import PPLValueError
from ppl.models.create_model import make_backbone
from ppl.models.weights import load_backbone_weights
from ppl.parameters import check_parameters
from ppl.refine.arrays import Positive, as_image, as_tensor, check_finite, like

__all__ = ["feature_walk"]

Array = TypeVar("Array", npt.NDArray[np.generic], torch.Tensor)

_MOST_CELLS = 4096  # larger images have larger cells, since the backbone takes most of the time


def _known_background(value: float | str) -> float | str:
    parse_background(value)
    return value


def feature_walk(
    image: npt.NDArray[np.generic] | torch.Tensor,
    probs: Array,
    *,
    backbone: str = "mobilenetv2_100",
    checkpoint_path: Path | None = None,
    reduction: Annotated[int, Field(ge=1)] = 16,
    stride: Annotated[int, Field(ge=1)] = 8,
    sharpness: Positive = 5.0,
    background: Annotated[float | str, AfterValidator(_known_background)] = CamConfig().background,
) -> Array:
    """Average the maps of the classes over all cells of the image that look alike to a frozen pretrained backbone.

    One step of a random walk between all pairs of cells, however far, by the similarity of their features (see
    `ppl.cam.propagation.propagate`). Nothing is trained. The CAMs are recovered as the ratio of foreground to
    background, so this refiner must be the first in a list and follow a constant background score or "auto".

    Source: ours. Affinities between features of pretrained networks are common: TokenCut (Wang et al., CVPR 2022) and
    others take those of DINO.

    Args:
        image: `(H, W, 3)`, uint8 or floating point in [0, 1].
        probs: `(L, H, W)`, the background in channel 0.
        backbone: name of a timm model that has `forward_intermediates`, as most of them do.
        checkpoint_path: weights of the backbone, as for `ppl.create_model`. None: timm's pretrained weights.
        reduction: take the features of the deepest stage whose cells have at most this many pixels. The image is
            enlarged so that these cells become cells of `stride`.
        stride: pixels of the image per cell; more for images that would have above 4096 cells.
        sharpness: factor of the cosine similarity; a higher value keeps the maps nearer to where they were.
        background: background rule that is applied after the walk: a score, "auto" or "power:ALPHA".

    Returns:
        `(L, H, W)`, an array of the kind, type and device of `probs`.

    Raises:
        PPLValueError: for shapes that do not match, values that are not finite, a backbone without a stage of this
            reduction, or weights of another model.
        PPLError: if pretrained weights cannot be downloaded.

    Example:
        >>> image, nothing = np.zeros((16, 24, 3), np.uint8), np.ones((1, 16, 24), np.float32)
        >>> feature_walk(image, nothing).shape  # without a class there is nothing to average
        (1, 16, 24)
    """
    given = check_parameters(
        feature_walk, checkpoint_path=checkpoint_path, reduction=reduction, stride=stride, sharpness=sharpness,
        background=background,
    )  # fmt: skip
    values = as_tensor(probs, "probs", "L H W")
    size = (values.shape[-2], values.shape[-1])
    pixels = as_image(image, size)
    check_finite("probs", values)
    check_finite("image", pixels)
    if not values.numel() or len(values) == 1:
        return like(probs, torch.ones_like(values))
    working = values.float()
    stride = max(given["stride"], math.ceil(math.sqrt(size[0] * size[1] / _MOST_CELLS)))
    cells = (-(-size[0] // stride), -(-size[1] // stride))
    network = _network(backbone, given["checkpoint_path"], str(values.device))
    features = _features(network, given["reduction"], pixels.to(working), cells)
    # The ratio to the background equals the CAMs up to a factor, which the division by the maximum removes.
    cams = propagate(working[1:] / working[:1].clamp(min=1e-6), [features], [given["sharpness"]])
    result = maps_to_probs(cams / cams.max().clamp(min=1e-12), parse_background(given["background"]))
    return like(probs, result.to(values.dtype))


@torch.no_grad()
def _features(network: nn.Module, reduction: int, image: Tensor, cells: tuple[int, int]) -> Tensor:
    """Return the features (C, *cells) of an image (H, W, 3) in [0, 1]."""
    stage, pixels_per_cell = _stage(network, reduction)
    normal = data_config(network)
    mean, std = (image.new_tensor(normal[name]) for name in ("mean", "std"))
    pixels = ((image - mean) / std).permute(2, 0, 1)[None]
    enlarged = (cells[0] * pixels_per_cell, cells[1] * pixels_per_cell)
    pixels = F.interpolate(pixels, enlarged, mode="bilinear", align_corners=False)
    (features,) = network.forward_intermediates(pixels, indices=[stage], intermediates_only=True, stop_early=True)  # type: ignore[operator]
    resized: Tensor = F.interpolate(features, cells, mode="area")[0]
    return resized


def _stage(network: nn.Module, reduction: int) -> tuple[int, int]:
    """Return the index and the reduction of the deepest stage whose reduction is at most `reduction`."""
    if not hasattr(network, "forward_intermediates"):
        raise PPLValueError(f"{type(network).__name__} has no forward_intermediates in timm: choose another backbone")
    reductions = [int(stage["reduction"]) for stage in network.feature_info]  # type: ignore[union-attr]
    fitting = [(index, found) for index, found in enumerate(reductions) if found <= reduction]
    if not fitting:
        raise PPLValueError(f"reduction={reduction} is below that of every stage: {sorted(set(reductions))}")
    return fitting[-1]


def _network(backbone: str, checkpoint_path: Path | None, device: str) -> nn.Module:
    stat = None if checkpoint_path is None else checkpoint_path.stat()
    return _cached_network(backbone, checkpoint_path, stat and (stat.st_mtime_ns, stat.st_size), device)


@lru_cache(maxsize=2)
def _cached_network(backbone: str, checkpoint_path: Path | None, _version: Any, device: str) -> nn.Module:
    source: dict[str, Any] = {"backbone": backbone, "output_stride": None, "timm_kwargs": {}}
    network = make_backbone(source, pretrained=checkpoint_path is None)
    if checkpoint_path is not None:
        load_backbone_weights(network, checkpoint_path)
    return network.requires_grad_(False).eval().to(device)
