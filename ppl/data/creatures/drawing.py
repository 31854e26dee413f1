"""Shapes, colours and textures to draw with."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter

__all__ = [
    "Array",
    "Colour",
    "Figure",
    "Points",
    "disc",
    "fill",
    "limb",
    "photo_piece",
    "rgb",
    "roundness",
    "to_corners",
]

Array = npt.NDArray[np.float32]
Points = npt.NDArray[np.float64]
Colour = tuple[float, float, float]


@dataclass
class Figure:
    """A drawn thing to paste into the scene.

    Attributes:
        colours: (h, w, 3) in 0..1.
        cover: (h, w), True where the figure is opaque.
        parts: (h, w), 1 head, 2 body, 0 neither.
        kind: class index + 1 of a creature, 0 for surroundings.
        corner: (top, left) in the scene.
    """

    colours: Array
    cover: npt.NDArray[np.bool_]
    parts: npt.NDArray[np.uint8]
    kind: int = 0
    corner: tuple[int, int] = (0, 0)

    def place(self, centre: Points) -> None:
        """Move the figure so that its middle lies at (row, column)."""
        height, width = self.cover.shape
        self.corner = int(centre[0]) - height // 2, int(centre[1]) - width // 2


@lru_cache(maxsize=1)
def _textures() -> dict[str, Array]:
    """Return photographs as luminance around 1."""
    from skimage import data
    from skimage.color import rgb2gray

    photos: dict[str, Any] = {
        "gravel": data.gravel(),
        "brick": data.brick(),
        "grass": data.grass(),
        "moon": data.moon(),
        "fur": rgb2gray(data.chelsea()[:130, 110:330]),
        "wood": rgb2gray(data.coffee()[:, :110]),
        "tissue": rgb2gray(data.immunohistochemistry()),
    }
    return {name: _even(np.asarray(photo, np.float32)) for name, photo in photos.items()}


def _even(grey: Array) -> Array:
    grey = (grey - grey.mean()) / (grey.std() + 1e-6)
    return (1 + 0.16 * grey.clip(-2.5, 2.5)).astype(np.float32)


def photo_piece(
    rng: np.random.Generator, names: tuple[str, ...], shape: tuple[int, int], zoom: tuple[float, float]
) -> Array:
    """Return a random piece of one of the photographs, at a random scale and turned at random."""
    photo = _textures()[names[rng.integers(len(names))]]
    photo = np.rot90(photo, int(rng.integers(4)))
    scale = rng.uniform(*zoom)
    height = min(photo.shape[0], max(8, int(shape[0] / scale)))
    width = min(photo.shape[1], max(8, int(shape[1] / scale)))
    top, left = rng.integers(photo.shape[0] - height + 1), rng.integers(photo.shape[1] - width + 1)
    piece = Image.fromarray(np.ascontiguousarray(photo[top : top + height, left : left + width]))
    piece = piece.resize((shape[1], shape[0]), Image.Resampling.BILINEAR)
    return np.asarray(piece, np.float32)


def disc(x: float, y: float, across: float, down: float | None = None) -> Points:
    """Return the outline of an ellipse around (x, y) with the half-axes `across` and `down`."""
    t = np.linspace(0, 2 * np.pi, 32, endpoint=False)
    return np.stack([x + across * np.cos(t), y + (across if down is None else down) * np.sin(t)], 1)


def limb(line: Points, start: float, end: float) -> Points:
    """Return the outline of a line with round ends and the half-widths `start` and `end`."""
    along = np.gradient(line, axis=0)
    along /= np.linalg.norm(along, axis=1, keepdims=True) + 1e-9
    across = np.stack([-along[:, 1], along[:, 0]], 1) * np.linspace(start, end, len(line))[:, None]
    t = np.linspace(np.pi / 2, -np.pi / 2, 8)[1:-1, None]
    cap = line[-1] + end * np.cos(t) * along[-1] + np.sin(t) * across[-1]
    foot = line[0] - start * np.cos(t) * along[0] - np.sin(t) * across[0]
    return np.concatenate([line + across, cap, (line - across)[::-1], foot])


def fill(shape: tuple[int, ...], outline: Points) -> npt.NDArray[np.bool_]:
    """Return the (H, W) mask of the pixels inside an outline."""
    image = Image.new("1", (shape[1], shape[0]))
    ImageDraw.Draw(image).polygon(to_corners(outline), fill=1)
    return np.array(image)


def to_corners(outline: Points) -> list[tuple[float, float]]:
    """Return an outline as Pillow's `ImageDraw` takes polygons."""
    return [(float(x), float(y)) for x, y in outline]


def roundness(cover: npt.NDArray[np.bool_]) -> Array:
    """Return the light on a shape: darker towards its edge, so that the shape looks round."""
    soft = Image.fromarray(cover.astype(np.uint8) * 255).filter(ImageFilter.BoxBlur(max(1, cover.shape[0] // 28)))
    edge = np.asarray(soft, np.float32) / 255
    return (0.45 + 0.6 * edge).astype(np.float32)


def rgb(hue: float, saturation: float, value: float) -> Colour:
    """Return a colour from hue (any number, in turns), saturation and value."""
    from colorsys import hsv_to_rgb

    return hsv_to_rgb(hue % 1.0, saturation, value)
