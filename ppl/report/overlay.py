"""Maps and masks drawn over their image."""

from __future__ import annotations

from colorsys import hsv_to_rgb
from typing import Any

import numpy as np
import numpy.typing as npt

from ppl.errors import PPLValueError

__all__ = ["as_rgb", "class_colours", "overlay", "overlay_mask"]

RGB = npt.NDArray[np.uint8]
_IGNORE, _LARGEST = 255, 65535  # the largest label of a 16-bit mask file
_ROWS = 512
"""Rows of a picture that are drawn at a time, so that memory for large pictures stays small."""


def class_colours(count: int) -> RGB:
    """Return bright colours for class 0, 1, ... such that neighbouring classes differ clearly.

    Mask files use Pascal VOC's colours, half of which are too dark to be drawn over a photograph.

    Args:
        count: number of colours.

    Returns:
        (count, 3) uint8, RGB.

    Example:
        >>> class_colours(2).tolist()
        [[250, 40, 40], [40, 101, 250]]
    """
    hues = (np.arange(count) * 0.61803399) % 1.0  # multiples of the golden ratio never repeat a hue
    tones = [((0.84, 0.98), (0.55, 1.0), (0.95, 0.72))[(i // 8) % 3] for i in range(count)]
    colours = [hsv_to_rgb(hue, saturation, value) for hue, (saturation, value) in zip(hues, tones, strict=True)]
    return np.round(np.array(colours).reshape(-1, 3) * 255).astype(np.uint8)


def overlay(image: Any, maps: Any, classes: Any = None, *, strength: float = 0.75) -> RGB:
    """Draw activation maps over an image.

    Args:
        image: (H, W, 3) uint8 array or a PIL image.
        maps: (H, W) in [0, 1], drawn as a heat map; or (k, H, W), drawn in the colour of each class.
        classes: (k,) class indices 0..K-1 of the maps; required for (k, H, W).
        strength: opacity of the colour where a map is 1.

    Returns:
        (H, W, 3) uint8.

    Raises:
        PPLValueError: if the sizes differ, or the classes are not as many as the maps.

    Example:
        >>> picture = overlay(np.zeros((2, 2, 3), np.uint8), [[[0.0, 1.0], [0.5, 0.0]]], [0], strength=1.0)
        >>> picture[0].tolist()
        [[0, 0, 0], [250, 40, 40]]
    """
    base, values = as_rgb(image), _array(maps).astype(np.float32)
    if values.shape[-2:] != base.shape[:2] or values.ndim not in (2, 3):
        raise PPLValueError(f"maps {values.shape} do not fit the image {base.shape[:2]}; resize them to the image")
    values = np.nan_to_num(values).clip(0, 1)
    if values.ndim == 2:
        from matplotlib import colormaps

        heat = np.asarray(colormaps["turbo"](values))[..., :3] * 255
        return _blend(base, heat, values * strength)
    names = [] if classes is None else [int(c) for c in _array(classes).reshape(-1)]
    if len(names) != len(values):
        raise PPLValueError(f"{len(values)} maps but {len(names)} classes; give one class index per map")
    if not names:
        return np.array(base)
    colours = class_colours(max(names) + 1)[names].astype(np.float32)
    total = values.sum(0)
    mixed = np.einsum("khw,kc->hwc", values, colours) / np.maximum(total, 1e-6)[..., None]
    return _blend(base, mixed, values.max(0) * strength)


def overlay_mask(image: Any, mask: Any, *, strength: float = 0.6) -> RGB:
    """Draw a mask over an image, with an outline around each region.

    Args:
        image: (H, W, 3) uint8 array or a PIL image.
        mask: (H, W) integers in 0..65535: 0 is background (transparent), class *c* is *c*+1, 255 is "ignore" (grey).
        strength: opacity of the colour.

    Returns:
        (H, W, 3) uint8.

    Raises:
        PPLValueError: if the sizes differ or a value is out of range.

    Example:
        >>> overlay_mask(np.zeros((1, 2, 3), np.uint8), [[0, 255]], strength=1.0).tolist()
        [[[0, 0, 0], [235, 235, 235]]]
    """
    base, indices = as_rgb(image), _array(mask)
    if indices.shape != base.shape[:2]:
        raise PPLValueError(f"mask {indices.shape} does not fit the image {base.shape[:2]}; resize it (nearest)")
    if indices.size and not 0 <= indices.min() <= indices.max() <= _LARGEST:
        raise PPLValueError(f"mask holds {indices.min()}..{indices.max()}; labels are 0..{_LARGEST}")
    table = np.concatenate([np.zeros((1, 3), np.uint8), class_colours(max(_IGNORE, int(indices.max(initial=0))))])
    table[_IGNORE] = 235
    drawn = np.empty_like(base)
    for top in range(0, len(base), _ROWS):
        first = max(0, top - 1)  # the neighbouring rows decide where outlines are
        rows = slice(first, top + _ROWS + 1)
        part = _draw_mask(base[rows], indices[rows].astype(np.int64), table, strength)
        drawn[top : top + _ROWS] = part[top - first :][:_ROWS]
    return drawn


def _draw_mask(base: RGB, indices: npt.NDArray[np.int64], table: npt.NDArray[Any], strength: float) -> RGB:
    edge = np.zeros(indices.shape, bool)
    for axis in (0, 1):
        ahead = np.diff(indices, axis=axis) != 0
        pad = [(0, 1) if a == axis else (0, 0) for a in (0, 1)]
        edge |= np.pad(ahead, pad) & (indices > 0)
        edge |= np.pad(ahead, [p[::-1] for p in pad]) & (indices > 0)
    share = np.where(edge, 1.0, np.where(indices > 0, strength, 0.0))
    return _blend(base, table.take(indices, axis=0), share)


def as_rgb(image: Any) -> RGB:
    """Return an image as (H, W, 3) uint8.

    Raises:
        PPLValueError: if the image is neither a PIL image nor a grey or RGB array of uint8.
    """
    pixels = np.asarray(image.convert("RGB")) if hasattr(image, "convert") else _array(image)
    if pixels.ndim == 2 and pixels.dtype == np.uint8:
        pixels = np.repeat(pixels[..., None], 3, 2)
    if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8:
        raise PPLValueError(f"an image is (H, W, 3) uint8 or a PIL image, got {pixels.shape} {pixels.dtype}")
    return pixels


def _array(values: Any) -> npt.NDArray[Any]:
    if hasattr(values, "detach"):
        values = values.detach().cpu()
        values = values.float() if values.is_floating_point() else values  # numpy has no bfloat16
    return np.asarray(values)


def _blend(base: RGB, colour: npt.NDArray[Any], share: npt.NDArray[Any]) -> RGB:
    mixed = base + (colour.astype(np.float32) - base) * share[..., None].astype(np.float32)
    return np.round(mixed).clip(0, 255).astype(np.uint8)
