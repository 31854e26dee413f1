"""The random walk as a refiner: on learned affinities, or on the colours of the image."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from pydantic import Field

from ppl.errors import PPLTypeError
from ppl.refine.arrays import Positive, as_image, as_tensor, like
from ppl.refine.walk import random_walk

__all__ = ["random_walk_refiner", "resolve_walk_options"]

Array = TypeVar("Array", npt.NDArray[np.generic], torch.Tensor)

_ON_COLOURS = {"stride": 1, "beta": 60.0, "num_steps": 32}  # ours
_ON_LEARNED = {"stride": None, "beta": 10.0, "num_steps": 256}  # IRN's; the network sets the stride


def random_walk_refiner(
    image: npt.NDArray[np.generic] | torch.Tensor,
    probs: Array,
    *,
    affinity: Path | Callable[[Any], Any] | None = None,
    stride: Annotated[int, Field(ge=1)] | None = None,
    radius: Annotated[int, Field(ge=2)] = 5,
    beta: Positive | None = None,
    num_steps: Annotated[int, Field(ge=0)] | None = None,
    background: Annotated[float, Field(gt=0, lt=1)] | None = None,
) -> Array:
    """Propagate probabilities by a random walk on learned affinities, or on the colours of the image.

    The probabilities are averaged over cells of `stride` pixels, propagated between the cells, and resized to the
    image.

    Args:
        image: `(H, W, 3)` uint8.
        probs: `(L, H, W)`.
        affinity: file of a trained affinity network, or the function that `load_affinity` returns. None: the affinity
            of two cells is `exp(-d)`, where `d` is the mean absolute difference of their colours in [0, 1].
        stride: pixels per cell. None: the network's stride, or 1 on colours (ours).
        radius: cells nearer than this are neighbours.
        beta: power on the affinities. None: 10 with a network, as in IRN, or 60 on colours (ours).
        num_steps: length of the walk. None: 256 with a network, as in IRN, or 32 on colours (ours).
        background: IRN's constant background score (IRN takes 0.25). With a score, the walk propagates the CAMs of the
            classes only, divides them by their common maximum, and puts this score in front. The CAMs are recovered as
            the ratio of foreground to background, so such a walk must be the first refiner and follow a constant
            background score or "auto". None: the background is propagated like any other label, as in PSA.

    Returns:
        `(L, H, W)`.

    Example:
        >>> probs = np.full((2, 8, 9), 0.5, np.float32)
        >>> random_walk_refiner(np.zeros((8, 9, 3), np.uint8), probs, num_steps=4).shape
        (2, 8, 9)
    """
    given = resolve_walk_options({"affinity": affinity, "stride": stride, "beta": beta, "num_steps": num_steps})
    values = as_tensor(probs, "probs", "L H W")
    size, dtype = (values.shape[-2], values.shape[-1]), values.dtype
    values = values.to(torch.promote_types(dtype, torch.float32))  # half precision cannot hold ratios of small scores
    colours = as_image(image, size).to(values)
    if not values.numel():
        return like(probs, values.to(dtype, copy=True))
    if background is not None and len(values) == 1:  # there is no class, so every pixel is background
        return like(probs, torch.ones_like(values, dtype=dtype))
    edges, features = None, None
    if affinity is None:
        cells = tuple((length - 1) // given["stride"] + 1 for length in size)
        features = F.interpolate(colours.permute(2, 0, 1)[None], cells, mode="area")[0]
    else:
        from ppl.refine.affinity_maps import load_affinity  # imports timm, which only learned affinities need

        learned = (load_affinity(affinity) if isinstance(affinity, Path) else affinity)(image)
        if stride is not None and stride != learned.stride:
            raise PPLTypeError(
                f"stride={stride} does not fit the affinity network, whose stride is {learned.stride}: leave stride out"
            )
        cells = learned.size
        edges = None if learned.edges is None else learned.edges.to(values)
        features = None if learned.features is None else learned.features.to(values)
    # The ratio to the background equals the CAMs up to a factor, which the division by the maximum removes.
    source = values if background is None else values[1:] / values[:1].clamp(min=1e-6)
    start = F.interpolate(source[None], cells, mode="area")[0]
    walked = random_walk(
        edges, start, features=features, radius=radius, beta=given["beta"], num_steps=given["num_steps"]
    )
    result = F.interpolate(walked[None], size, mode="bilinear", align_corners=False)[0]
    if background is not None:
        result = torch.cat([torch.full_like(values[:1], background), result / result.max().clamp(min=1e-12)])
    return like(probs, (result / result.sum(dim=0, keepdim=True).clamp(min=1e-12)).to(dtype))


def resolve_walk_options(options: Mapping[str, Any], device: str = "cpu") -> dict[str, Any]:
    """Return the options with the defaults that depend on whether the affinities are learned in place of None.

    Example:
        >>> resolve_walk_options({"affinity": None, "beta": None, "num_steps": 16})
        {'affinity': None, 'beta': 60.0, 'num_steps': 16}
    """
    defaults = _ON_COLOURS if options["affinity"] is None else _ON_LEARNED
    return {name: defaults.get(name) if value is None else value for name, value in options.items()}
