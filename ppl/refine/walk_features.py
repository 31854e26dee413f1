"""A random walk between all cells of an image that look alike to a frozen pretrained network. Nothing is trained."""

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
from ppl.errors import PPLError, PPLValueError
from ppl.models.create_model import make_backbone
from ppl.models.weights import load_backbone_weights
from ppl.parameters import check_parameters
from ppl.refine.arrays import Positive, as_image, as_tensor, check_finite, like

__all__ = ["feature_walk"]

Array = TypeVar("Array", npt.NDArray[np.generic], torch.Tensor)

_MOST_CELLS = 4096  # of one image; larger images have larger cells
_ROWS = 1024  # rows of the affinity matrix in memory at once


def _known_background(value: float | str | None) -> float | str | None:
    try:
        return value if value is None or parse_background(value) is not None else None
    except PPLError as error:
        raise ValueError(str(error)) from None


def feature_walk(
    image: npt.NDArray[np.generic] | torch.Tensor,
    probs: Array,
    *,
    backbone: str = "mobilenetv2_100",
    checkpoint_path: Path | None = None,
    reduction: Annotated[int, Field(ge=1)] = 16,
    stride: Annotated[int, Field(ge=1)] = 8,
    sharpness: Positive = 5.0,
    num_steps: Annotated[int, Field(ge=0)] = 1,
    background: Annotated[float | str | None, AfterValidator(_known_background)] = CamConfig().background,
) -> Array:
    """Propagate maps between all cells of an image whose features of a frozen pretrained backbone are alike.

    Every cell gets the average of the maps over all cells, weighted with `exp(-sharpness * (1 - cosine))`, where
    `cosine` is the cosine similarity of the cells' features after subtraction of the image's mean feature. In contrast
    to `random_walk`, all cells of the image are neighbours, and no affinity is learned.

    The weights are ours. Affinities between features of pretrained networks are common: TokenCut (Wang et al., CVPR
    2022) and others take those of DINO.

    Args:
        image: `(H, W, 3)`, uint8 or floating point in [0, 1].
        probs: `(L, H, W)`, the background in channel 0.
        backbone: name of a timm model that has `forward_intermediates`, as most of them do.
        checkpoint_path: weights of the backbone, as for `ppl.create_model`. None: timm's pretrained weights.
        reduction: take the features of the deepest stage whose cells have at most this many pixels. The image is
            enlarged so that these cells become cells of `stride`.
        stride: pixels of the image per cell; more for images that would have above 4096 cells.
        sharpness: a higher value keeps the maps nearer to where they were.
        num_steps: number of averages.
        background: background rule that follows the walk: a score, "auto" or "power:ALPHA". With a rule, only the
            classes are propagated. Their CAMs are recovered as the ratio of foreground to background, so such a walk
            must be the first refiner and follow a constant background score or "auto". None: the background is
            propagated like any other label.

    Returns:
        `(L, H, W)`, an array of the kind, type and device of `probs`.

    Raises:
        PPLValueError: for shapes that do not match, values that are not finite, a backbone without a stage of this
            reduction, or weights of another model.
        PPLError: if pretrained weights cannot be downloaded.

    Example:
        >>> probs = np.full((2, 16, 24), 0.5, np.float32)
        >>> image = np.zeros((16, 24, 3), np.uint8)
        >>> feature_walk(image, probs, num_steps=0, background=None).shape  # the network runs from one step on
        (2, 16, 24)
    """
    given = check_parameters(
        feature_walk, checkpoint_path=checkpoint_path, reduction=reduction, stride=stride, sharpness=sharpness,
        num_steps=num_steps, background=background,
    )  # fmt: skip
    values = as_tensor(probs, "probs", "L H W")
    size = (values.shape[-2], values.shape[-1])
    pixels = as_image(image, size)
    check_finite("probs", values)
    check_finite("image", pixels)
    working = values.float()
    if not values.numel() or (background is not None and len(values) == 1):  # without a class, all is background
        return like(probs, torch.ones_like(values) if values.numel() else values.clone())
    # The ratio to the background equals the CAMs up to a factor, which the division by the maximum removes.
    source = working if background is None else working[1:] / working[:1].clamp(min=1e-6)
    stride = max(given["stride"], math.ceil(math.sqrt(size[0] * size[1] / _MOST_CELLS)))
    cells = (-(-size[0] // stride), -(-size[1] // stride))
    walked = F.interpolate(source[None], cells, mode="area")[0].flatten(1).T
    if given["num_steps"]:
        network = _network(backbone, given["checkpoint_path"], str(values.device))
        features = _features(network, given["reduction"], pixels.to(working), cells)
        for _ in range(given["num_steps"]):
            walked = _averages(features, walked, given["sharpness"])
    result = F.interpolate(walked.T.reshape(1, -1, *cells), size, mode="bilinear", align_corners=False)[0]
    if background is None:
        result = result / result.sum(dim=0, keepdim=True).clamp(min=1e-12)
    else:
        result = maps_to_probs(result / result.max().clamp(min=1e-12), parse_background(given["background"]))
    return like(probs, result.to(values.dtype))


def _averages(features: Tensor, maps: Tensor, sharpness: float) -> Tensor:
    """Average maps (n, k) over all cells, weighted with the affinities of unit features (n, C)."""
    rows = []
    for some in torch.split(features, _ROWS):
        affinity = (some @ features.T).sub_(1).mul_(sharpness).exp_()
        rows.append((affinity @ maps) / affinity.sum(dim=1, keepdim=True))
    return torch.cat(rows)


@torch.no_grad()
def _features(network: nn.Module, reduction: int, image: Tensor, cells: tuple[int, int]) -> Tensor:
    """Return unit vectors (n, C) of all cells, after subtraction of their mean; image (H, W, 3) in [0, 1]."""
    stage, pixels_per_cell = _stage(network, reduction)
    normal = data_config(network)
    mean, std = (image.new_tensor(normal[name]) for name in ("mean", "std"))
    pixels = ((image - mean) / std).permute(2, 0, 1)[None]
    enlarged = (cells[0] * pixels_per_cell, cells[1] * pixels_per_cell)
    pixels = F.interpolate(pixels, enlarged, mode="bilinear", align_corners=False)
    (features,) = network.forward_intermediates(pixels, indices=[stage], intermediates_only=True, stop_early=True)  # type: ignore[operator]
    vectors = F.interpolate(features, cells, mode="area")[0].flatten(1).T
    return F.normalize(vectors - vectors.mean(dim=0, keepdim=True), dim=1)


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
