"""Segments of SAM (Segment Anything): a segment that mostly has one label gets that label as a whole."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import lru_cache
from typing import Annotated, Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field

from ppl.errors import PPLValueError
from ppl.extras import require
from ppl.parameters import check_parameters
from ppl.refine.arrays import as_image, as_tensor, check_finite, like

__all__ = ["load_sam", "sam", "sam_segments"]

Array = TypeVar("Array", npt.NDArray[np.generic], torch.Tensor)
Segments = npt.NDArray[np.bool_]
Share = Annotated[float, Field(ge=0.5, le=1)]
Quality = Annotated[float, Field(ge=0, le=1)]

DEFAULT_MODEL = "facebook/sam-vit-base"

_lock = threading.Lock()


def sam(
    image: npt.NDArray[np.generic] | torch.Tensor,
    probs: Array,
    *,
    model: str | Callable[[Any], Segments] = DEFAULT_MODEL,
    share: Share = 0.5,
    contained: Share = 0.85,
    points: Annotated[int, Field(ge=1)] = 32,
    min_iou: Quality = 0.88,
    min_stability: Quality = 0.95,
) -> Array:
    """Replace the region of each label by the segments of SAM that the region covers, or that contain the region.

    A segment belongs to the foreground label with the largest part of the segment. The segment is taken if this part
    is more than `share` of the segment, or more than `contained` of all pixels of the label. Pixels of the label
    outside its segments become background; a label without segments stays as it is. Where segments of two labels
    overlap, the larger covered part wins.

    Source: Chen et al., "Segment Anything Model Enhanced Pseudo Labels for Weakly Supervised Semantic Segmentation",
    2023, from which the rule is adapted. Kirillov et al., "Segment Anything", ICCV 2023, for the segments.

    Args:
        image: `(H, W, 3)`, uint8 or floating point in [0, 1].
        probs: `(L, H, W)`, the background in channel 0.
        model: name or folder of a SAM model of `transformers`, see `sam_segments`; or a function that returns the
            segments of an image, `(n, H, W)` bool.
        share: covered part of a segment above which the segment is taken.
        contained: part of a label's pixels above which a segment that holds them is taken.
        points: SAM is asked for the segments at `points` x `points` places.
        min_iou: least quality of a segment by SAM's own estimate.
        min_stability: least IoU of the segments that a slightly higher and a slightly lower threshold give.

    Returns:
        `(L, H, W)`. In a segment the probability of the label is the larger of the two parts above, and the background
        has the rest.

    Raises:
        MissingExtraError: without `transformers`; the message holds the `pip install` line.
        PPLValueError: if there is no such model, or segments of another size than `probs`.

    Example:
        >>> segments = lambda image: np.array([[[True, True, True, False]]])
        >>> probs = np.array([[[0.2, 0.2, 0.9, 0.9]], [[0.8, 0.8, 0.1, 0.1]]], np.float32)
        >>> sam(np.zeros((1, 4, 3), np.uint8), probs, model=segments)[1].round(2)
        array([[1. , 1. , 1. , 0.1]], dtype=float32)
    """
    check_parameters(sam, model=model, share=share, contained=contained)
    values = as_tensor(probs, "probs", "L H W")
    check_finite("probs", values)
    as_image(image, (values.shape[-2], values.shape[-1]))
    if len(values) < 2 or not values.numel():
        return like(probs, values.clone())
    if callable(model):
        segments = model(image)
    else:
        segments = sam_segments(image, model=model, points=points, min_iou=min_iou, min_stability=min_stability)
    if segments.ndim != 3 or segments.shape[1:] != tuple(values.shape[1:]):
        raise PPLValueError(
            f"segments must be (n, {values.shape[1]}, {values.shape[2]}), got {tuple(segments.shape)}: give the "
            "segments at the size of the image"
        )
    if not len(segments):
        return like(probs, values.clone())
    taken = _taken(torch.from_numpy(np.asarray(segments, bool)), values.detach().cpu(), share, contained)
    return like(probs, taken.to(values))


def _taken(segments: torch.Tensor, probs: torch.Tensor, share: float, contained: float) -> torch.Tensor:
    """Apply the rule of `sam` to segments (n, H, W) and probabilities (L, H, W)."""
    foreground = torch.arange(1, len(probs))
    regions = probs.argmax(dim=0) == foreground[:, None, None]  # (L - 1, H, W)
    overlaps = torch.stack([(regions & segment).sum(dim=(1, 2)) for segment in segments]).double()
    largest, owner = overlaps.max(dim=1)
    of_segment = largest / segments.sum(dim=(1, 2)).clamp(min=1)
    of_region = largest / regions.sum(dim=(1, 2)).clamp(min=1)[owner]
    chosen = (of_segment > share) | (of_region > contained)
    covered = torch.maximum(of_segment, of_region)

    result = probs.clone()
    for label in set(owner[chosen].tolist()):
        region = regions[label]
        result[0][region] += result[label + 1][region]
        result[label + 1][region] = 0
    for number in sorted(chosen.nonzero().flatten().tolist(), key=lambda number: (float(covered[number]), -number)):
        inside = segments[number]
        result[:, inside] = 0
        result[0, inside] = 1 - covered[number].to(result)
        result[owner[number] + 1, inside] = covered[number].to(result)
    return result


def sam_segments(
    image: npt.NDArray[np.generic] | torch.Tensor,
    *,
    model: str = DEFAULT_MODEL,
    points: Annotated[int, Field(ge=1)] = 32,
    min_iou: Quality = 0.88,
    min_stability: Quality = 0.95,
) -> Segments:
    """Return the segments that SAM finds at a grid of points, without duplicates.

    The model runs on the first GPU, or without a GPU on the CPU, which takes long.

    Args:
        image: `(H, W, 3)`, uint8 or floating point in [0, 1].
        model: name of a model on the Hugging Face hub, such as "facebook/sam-vit-base" or "facebook/sam-vit-huge", or
            the folder of a downloaded model. The model is loaded once and kept.
        points: points on each side of the grid.
        min_iou: least quality of a segment by SAM's own estimate.
        min_stability: least IoU of the segments that a slightly higher and a slightly lower threshold give.

    Returns:
        `(n, H, W)` bool. Segments may overlap, and need not cover the image.

    Raises:
        MissingExtraError: without `transformers`; the message holds the `pip install` line.
        PPLValueError: if there is no such model.

    Example:
        >>> sam_segments(picture).shape  # doctest: +SKIP
        (57, 375, 500)
    """
    check_parameters(sam_segments, points=points, min_iou=min_iou, min_stability=min_stability)
    shape = tuple(getattr(image, "shape", ()))
    pixels = as_image(image, (shape[-3], shape[-2]) if len(shape) == 3 else (0, 0))
    from PIL import Image

    picture = Image.fromarray((pixels.detach().cpu().numpy() * 255).round().astype(np.uint8))
    generator = load_sam(model)
    with _lock:  # a pipeline of transformers serves one thread at a time
        found = generator(
            picture, points_per_crop=points, pred_iou_thresh=min_iou, stability_score_thresh=min_stability
        )["masks"]
    masks = [np.asarray(mask, bool) for mask in found]
    return np.stack(masks) if masks else np.zeros((0, *shape[:2]), np.bool_)


@lru_cache(maxsize=1)
def load_sam(model: str) -> Any:
    """Return the mask generator of `transformers` for a SAM model, the same object for the same model.

    Raises:
        MissingExtraError: without `transformers`; the message holds the `pip install` line.
        PPLValueError: if there is no such model.

    Example:
        >>> load_sam("facebook/sam-vit-base")  # doctest: +SKIP
        <transformers.pipelines.mask_generation.MaskGenerationPipeline object>
    """
    transformers = require("transformers", extra="hf")
    device = 0 if torch.cuda.is_available() else -1
    try:
        return transformers.pipeline("mask-generation", model=model, device=device)
    except (OSError, ValueError) as error:
        raise PPLValueError(
            f"no SAM model at {model!r} ({str(error).splitlines()[0]}): give a name such as {DEFAULT_MODEL!r}, or the "
            "folder of a downloaded model"
        ) from error
