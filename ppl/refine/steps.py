"""The refiners by name, each as a step `(image, probabilities) -> probabilities`: a new one is one file and one line.

A step takes an image `(H, W, 3)` uint8 and probabilities `(L, H, W)` with the background in channel 0, and returns
probabilities of the same shape. Its keyword-only parameters, their types and ranges are what a recipe may set.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from pydantic import AfterValidator, Field

from ppl.errors import PPLTypeError, nearest
from ppl.parameters import check_parameters
from ppl.refine.adaptive import pixel_adaptive
from ppl.refine.arrays import Positive, Weight, as_image, as_tensor, like
from ppl.refine.crf import PRESETS, crf_backend
from ppl.refine.crf.problem import from_preset, solve
from ppl.refine.guided import guided_filter
from ppl.refine.segments import superpixels
from ppl.refine.walk import random_walk

__all__ = ["REFINERS", "Refiner", "crf_step", "random_walk_step"]

Array = TypeVar("Array", npt.NDArray[np.generic], torch.Tensor)


def _known_preset(name: str) -> str:
    if name not in PRESETS:
        raise ValueError(f"no such preset{nearest(name, PRESETS)}")
    return name


def _known_backend(name: str) -> str:
    crf_backend(name)
    return name


def crf_step(
    image: npt.NDArray[np.generic] | torch.Tensor,
    probs: Array,
    *,
    preset: Annotated[str, AfterValidator(_known_preset)] = "psa",
    iterations: Annotated[int, Field(ge=0)] | None = None,
    gaussian_sxy: Positive | None = None,
    gaussian_compat: Weight | None = None,
    bilateral_sxy: Positive | None = None,
    bilateral_srgb: Positive | None = None,
    bilateral_compat: Weight | None = None,
    gt_prob: Annotated[float, Field(gt=0, lt=1)] | None = None,
    scale_factor: Positive = 1.0,
    backend: Annotated[str, AfterValidator(_known_backend)] = "auto",
) -> Array:
    """The dense CRF with a published setting, single values of which may be replaced.

    Settings made for hard labels (`irn`, `puzzle`) see the most likely label of each pixel, with the probability
    `gt_prob` of being right; the others see the probabilities.

    Args:
        image: `(H, W, 3)` uint8.
        probs: `(L, H, W)`.
        preset: a key of `ppl.refine.PRESETS`.
        iterations: in place of the preset's, like the rest: mean-field steps.
        gaussian_sxy: width of the smoothness kernel in pixels.
        gaussian_compat: its weight.
        bilateral_sxy: width of the appearance kernel in pixels.
        bilateral_srgb: its width in colour, 0 to 255.
        bilateral_compat: its weight.
        gt_prob: how likely a hard label is right.
        scale_factor: divides both widths in pixels.
        backend: engine, as for `ppl.refine.crf`.

    Returns:
        `(L, H, W)` float32.

    Example:
        >>> probs = np.full((2, 5, 6), 0.5, np.float32)
        >>> crf_step(np.zeros((5, 6, 3), np.uint8), probs, preset="irn", iterations=1).shape
        (2, 5, 6)
    """
    given: dict[str, Any] = {
        "iterations": iterations,
        "gaussian_sxy": gaussian_sxy,
        "gaussian_compat": gaussian_compat,
        "bilateral_sxy": bilateral_sxy,
        "bilateral_srgb": bilateral_srgb,
        "bilateral_compat": bilateral_compat,
        "gt_prob": gt_prob,
    }
    known = PRESETS[check_parameters(crf_step, preset=preset)["preset"]]
    setting = replace(known, **{name: value for name, value in given.items() if value is not None})
    refined: Array = solve([from_preset(image, probs, setting, scale_factor=scale_factor, backend=backend)])[0]
    return refined


def _resolve_crf(parameters: Mapping[str, Any]) -> dict[str, Any]:
    setting = PRESETS[parameters["preset"]]
    resolved = {name: getattr(setting, name) if value is None else value for name, value in parameters.items()}
    return {**resolved, "backend": crf_backend(resolved["backend"])}


def random_walk_step(
    image: npt.NDArray[np.generic] | torch.Tensor,
    probs: Array,
    *,
    affinity: Path | Callable[[Any], Any] | None = None,
    stride: Annotated[int, Field(ge=1)] | None = None,
    radius: Annotated[int, Field(ge=2)] = 5,
    beta: Positive | None = None,
    steps: Annotated[int, Field(ge=0)] | None = None,
    background: Annotated[float, Field(gt=0, lt=1)] | None = None,
) -> Array:
    """The random walk on learned affinities, or on the colours of the image where there are none.

    The probabilities are averaged over cells of `stride` pixels, walk, and are enlarged again.

    Args:
        image: `(H, W, 3)` uint8.
        probs: `(L, H, W)`.
        affinity: file of a trained affinity network, or what `load_affinity` made of it. Without it the affinity of
            two cells is `exp(-mean |colour difference|)`, colours in [0, 1].
        stride: pixels per cell; by default the network's, and 1 on colours (ours).
        radius: cells nearer than this are neighbours.
        beta: power on the affinities; by default 10 with a network, as in IRN, and 60 on colours (ours).
        steps: length of the walk; by default 256 with a network, as in IRN, and 32 on colours (ours).
        background: IRN's way: the CAMs walk, are divided by their maximum over all labels, and compete with this
            constant (IRN takes 0.25). The CAMs are what the foreground is relative to the background, so this belongs
            first in a list, behind a constant background score or Otsu's. By default the background walks like any
            other label, as in PSA.

    Returns:
        `(L, H, W)`.

    Example:
        >>> probs = np.full((2, 8, 9), 0.5, np.float32)
        >>> random_walk_step(np.zeros((8, 9, 3), np.uint8), probs, steps=4).shape
        (2, 8, 9)
    """
    given = _resolve_walk({"affinity": affinity, "stride": stride, "beta": beta, "steps": steps})
    values = as_tensor(probs, "probs", "L H W")
    size, dtype = (values.shape[-2], values.shape[-1]), values.dtype
    values = values.to(torch.promote_types(dtype, torch.float32))  # ratios of small scores leave half precision
    colours = as_image(image, size).to(values)
    if not values.numel():
        return like(probs, values.to(dtype, copy=True))
    if background is not None and len(values) == 1:  # no class competes with the constant
        return like(probs, torch.ones_like(values, dtype=dtype))
    if affinity is None:
        cells = tuple((length - 1) // given["stride"] + 1 for length in size)
        guides: dict[str, Any] = {"features": F.interpolate(colours.permute(2, 0, 1)[None], cells, mode="area")[0]}
    else:
        from ppl.refine.affinity_maps import load_affinity  # loads timm, which only this step needs

        learned = (load_affinity(affinity) if isinstance(affinity, Path) else affinity)(image)
        if stride is not None and stride != learned.stride:
            raise PPLTypeError(f"stride={stride} cannot be had: this affinity network works at stride {learned.stride}")
        cells = learned.size
        guides = {"edges": learned.edges, "features": learned.features}
    guides = {name: guide.to(values) for name, guide in guides.items() if guide is not None}
    # in IRN's way the CAMs again, but for a factor that the division by the maximum removes
    source = values if background is None else values[1:] / values[:1].clamp(min=1e-6)
    start = F.interpolate(source[None], cells, mode="area")[0]
    walked = random_walk(start, **guides, radius=radius, beta=given["beta"], steps=given["steps"])
    result = F.interpolate(walked[None], size, mode="bilinear", align_corners=False)[0]
    if background is not None:
        result = torch.cat([torch.full_like(values[:1], background), result / result.max().clamp(min=1e-12)])
    return like(probs, (result / result.sum(dim=0, keepdim=True).clamp(min=1e-12)).to(dtype))


def _resolve_walk(parameters: Mapping[str, Any]) -> dict[str, Any]:
    learned = parameters["affinity"] is not None
    # A network's stride is its own: None stays None.
    defaults = {"stride": None, "beta": 10.0, "steps": 256} if learned else {"stride": 1, "beta": 60.0, "steps": 32}
    return {name: defaults.get(name) if value is None else value for name, value in parameters.items()}


@dataclass(frozen=True)
class Refiner:
    """An entry of the registry.

    Args:
        function: `(image, probs, *, ...) -> probs`.
        shorthand: the parameter that `name: value` in a recipe sets.
        resolve: fills in what the parameters leave to the refiner, for the manifest.
    """

    function: Callable[..., Any]
    shorthand: str
    resolve: Callable[[Mapping[str, Any]], dict[str, Any]] = dict


REFINERS: Mapping[str, Refiner] = MappingProxyType(
    {
        "crf": Refiner(crf_step, "preset", _resolve_crf),
        "guided_filter": Refiner(guided_filter, "radius"),
        "pixel_adaptive": Refiner(pixel_adaptive, "iterations"),
        "random_walk": Refiner(random_walk_step, "affinity", _resolve_walk),
        "superpixels": Refiner(superpixels, "method"),
    }
)
"""Name in a recipe -> the refiner behind it."""
