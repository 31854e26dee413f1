"""Superpixels: one score per segment of similar colour, so that masks end at the borders of segments."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field

from ppl.parameters import check_parameters
from ppl.refine.arrays import Positive, Weight, as_image, as_tensor, check_finite, like

__all__ = ["superpixel_segments", "superpixels"]

Array = TypeVar("Array", npt.NDArray[np.generic], torch.Tensor)
Method = Literal["slic", "felzenszwalb"]
Mode = Literal["mean", "vote"]


def superpixel_segments(
    image: npt.NDArray[np.generic] | torch.Tensor,
    *,
    method: Method = "slic",
    n_segments: Annotated[int, Field(ge=1)] = 1000,
    compactness: Positive = 10.0,
    scale: Positive = 50.0,
    min_size: Annotated[int, Field(ge=1)] = 30,
    sigma: Weight = 0.5,
) -> npt.NDArray[np.int64]:
    """Cut an image into segments of similar colour with scikit-image.

    Sources: Achanta et al., "SLIC Superpixels", TPAMI 2012; Felzenszwalb and Huttenlocher, "Efficient Graph-Based
    Image Segmentation", IJCV 2004. The defaults are ours.

    Args:
        image: `(H, W, 3)`, uint8 or floating point in [0, 1].
        method: `"slic"` for compact segments of similar size, `"felzenszwalb"` for segments of any size.
        n_segments: SLIC: approximate number of segments.
        compactness: SLIC: weight of distance in space against distance in colour.
        scale: felzenszwalb: a higher scale gives larger segments.
        min_size: felzenszwalb: smallest segment in pixels; smaller ones are merged.
        sigma: width of the blur before segmenting, in pixels.

    Returns:
        `(H, W)` segment numbers from 0, without gaps.

    Raises:
        PPLValueError: if the image is not a finite colour image, or a parameter is out of range.

    Example:
        >>> image = np.zeros((20, 20, 3), np.uint8)
        >>> image[:, 10:] = 255
        >>> np.unique(superpixel_segments(image, method="felzenszwalb", sigma=0)).size
        2
    """
    given = check_parameters(
        superpixel_segments,
        method=method,
        n_segments=n_segments,
        compactness=compactness,
        scale=scale,
        min_size=min_size,
        sigma=sigma,
    )
    shape = tuple(getattr(image, "shape", ()))
    colours = as_image(image, (shape[-3], shape[-2]) if len(shape) == 3 else (0, 0))
    check_finite("image", colours)
    pixels = colours.detach().cpu().numpy()
    if 0 in shape[:2]:
        return np.zeros(shape[:2], np.int64)
    from skimage import segmentation  # slow to import

    sigma = given["sigma"]
    if method == "slic":
        # The search window of SLIC needs at least one pixel per segment.
        count = min(given["n_segments"], shape[0] * shape[1])
        compactness = given["compactness"]
        segments = segmentation.slic(pixels, n_segments=count, compactness=compactness, sigma=sigma, start_label=0)
    else:
        scale, min_size = given["scale"], given["min_size"]
        segments = segmentation.felzenszwalb(pixels, scale=scale, sigma=sigma, min_size=min_size)
    numbers: npt.NDArray[np.int64] = np.unique(segments, return_inverse=True)[1].reshape(shape[:2]).astype(np.int64)
    return numbers


def superpixels(
    image: npt.NDArray[np.generic] | torch.Tensor,
    maps: Array,
    *,
    method: Method = "slic",
    n_segments: Annotated[int, Field(ge=1)] = 1000,
    compactness: Positive = 10.0,
    scale: Positive = 50.0,
    min_size: Annotated[int, Field(ge=1)] = 30,
    sigma: Weight = 0.5,
    mode: Mode = "mean",
) -> Array:
    """Give all pixels of a segment the same scores.

    Args:
        image: `(H, W, 3)`, uint8 or floating point in [0, 1].
        maps: `(k, H, W)`, any floating type.
        method: `"slic"` for compact segments of similar size, `"felzenszwalb"` for segments of any size.
        n_segments: SLIC: approximate number of segments.
        compactness: SLIC: weight of distance in space against distance in colour.
        scale: felzenszwalb: a higher scale gives larger segments.
        min_size: felzenszwalb: smallest segment in pixels.
        sigma: width of the blur before segmenting, in pixels.
        mode: `"mean"`: a segment gets the mean score of its pixels. `"vote"`: every pixel votes for its highest map,
            and a segment gets each map's share of the votes; the background must be one of the maps.

    Returns:
        An array of the kind, shape, type and device of `maps`. Not differentiable.

    Raises:
        PPLValueError: for shapes that do not match or values that are not finite.

    Example:
        >>> image = np.zeros((4, 8, 3), np.uint8)
        >>> image[:, 4:] = 255
        >>> maps = np.linspace(0, 1, 8, dtype=np.float32)[None, None].repeat(4, axis=1)
        >>> superpixels(image, maps, method="felzenszwalb", sigma=0, min_size=1)[0, 0].round(2)
        array([0.21, 0.21, 0.21, 0.21, 0.79, 0.79, 0.79, 0.79], dtype=float32)
    """
    check_parameters(superpixels, mode=mode)
    values = as_tensor(maps, "maps", "k H W")
    as_image(image, (values.shape[-2], values.shape[-1]))
    check_finite("maps", values)
    segments = superpixel_segments(
        image,
        method=method,
        n_segments=n_segments,
        compactness=compactness,
        scale=scale,
        min_size=min_size,
        sigma=sigma,
    )
    scores = values.detach().cpu().double().numpy()
    if not scores.size:
        return like(maps, values.clone())
    averaged = _segment_votes(segments, scores) if mode == "vote" else _segment_means(segments, scores)
    return like(maps, torch.from_numpy(averaged[:, segments]).to(values))


def _segment_means(segments: npt.NDArray[np.int64], scores: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Return the mean score of every map (k) in every segment (n): (k, n)."""
    numbers = segments.ravel()
    sizes = np.bincount(numbers)
    sums = np.stack([np.bincount(numbers, weights=score.ravel()) for score in scores])
    means: npt.NDArray[np.float64] = sums / sizes
    return means


def _segment_votes(segments: npt.NDArray[np.int64], scores: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Return the share of the pixels of each segment (n) at which each map (k) is the highest: (k, n)."""
    k, n = scores.shape[0], int(segments.max()) + 1
    ballots = scores.argmax(axis=0).ravel() * n + segments.ravel()
    votes = np.bincount(ballots, minlength=k * n).reshape(k, n)
    shares: npt.NDArray[np.float64] = votes / votes.sum(axis=0)
    return shares
