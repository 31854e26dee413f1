"""Draw a creature: a body in the pattern of its class (or of another), and its head."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from ppl.data.creatures.drawing import Array, Figure, Points, fill, limb, photo_piece, rgb, roundness, to_corners
from ppl.data.creatures.heads import HEADS

__all__ = ["PATTERNS", "draw_creature"]

_OWN_PATTERN = 0.85  # share of bodies in the pattern of their class; the rest wear any pattern
_OWN_HUE = 0.7  # share of bodies in a hue near that of their class; the rest have any hue


@dataclass(frozen=True)
class _Pose:
    """Map the creature's own frame (x to the front, y down, body length 2) to pixels."""

    unit: float
    turn: float
    mirror: bool
    shift: Points

    def __call__(self, points: Points) -> Points:
        x, y = points[:, 0] * (-1 if self.mirror else 1), points[:, 1]
        cos, sin = np.cos(self.turn), np.sin(self.turn)
        return np.stack([cos * x - sin * y, sin * x + cos * y], 1) * self.unit + self.shift

    def back(self, columns: Array, rows: Array) -> tuple[Array, Array]:
        x, y = (columns - self.shift[0]) / self.unit, (rows - self.shift[1]) / self.unit
        cos, sin = np.cos(self.turn), np.sin(self.turn)
        return (cos * x + sin * y) * (-1 if self.mirror else 1), cos * y - sin * x


def draw_creature(rng: np.random.Generator, kind: int, side: int, crowd: int, *, own_pattern: bool) -> Figure:
    """Draw a creature of class `kind` for a picture of `side` pixels; in a crowd it is smaller."""
    unit = side * rng.uniform(0.17, 0.25) * (1.0, 0.9, 0.8)[crowd - 1]
    pose = _Pose(unit, rng.uniform(-0.45, 0.45), bool(rng.integers(2)), np.zeros(2))
    body = [pose(outline) for outline in _body_outlines(rng)]
    neck = pose(np.array([[rng.uniform(0.95, 1.15), rng.uniform(-0.75, -0.35)]]))[0]
    head_pose = _Pose(unit * rng.uniform(0.48, 0.58), pose.turn + rng.uniform(-0.3, 0.3), pose.mirror, neck)
    face = [(head_pose(outline), colour) for outline, colour in HEADS[kind](rng)]

    points = np.concatenate([*body, *(outline for outline, _ in face)])
    low = points.min(0) - 2
    width, height = (int(v) for v in np.ceil(points.max(0) - low + 2))
    cover = np.zeros((height, width), bool)
    for outline in body:
        cover |= fill((height, width), outline - low)
    colours = _body_colours(rng, kind, replace(pose, shift=-low), cover, own_pattern=own_pattern)
    layer, seen = Image.new("RGB", (width, height)), Image.new("1", (width, height))
    brush, stencil = ImageDraw.Draw(layer), ImageDraw.Draw(seen)
    for outline, colour in face:
        corners = to_corners(outline - low)
        brush.polygon(corners, fill=tuple(round(255 * c) for c in colour))
        stencil.polygon(corners, fill=1)
    head = np.array(seen)
    shade = photo_piece(rng, ("fur", "moon"), head.shape, (0.8, 1.6)) ** 0.5 * roundness(head)
    colours[head] = (np.asarray(layer, np.float32) / 255 * shade[..., None])[head]
    return Figure(colours, cover | head, np.where(head, 1, np.where(cover, 2, 0)).astype(np.uint8), kind + 1)


def _body_outlines(rng: np.random.Generator) -> list[Points]:
    """Return the outlines of a rump of length 2, four legs and a tail."""
    fat, bend = rng.uniform(0.5, 0.75), rng.uniform(-0.25, 0.25)
    t = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    x = np.cos(t)
    rump = np.stack([x, np.sin(t) * fat * (1 + 0.15 * x) + bend * (1 - x**2)], 1)
    outlines = [rump]
    for foot in (-0.72, -0.42, 0.4, 0.7):
        lean, long = rng.uniform(-0.2, 0.2), rng.uniform(0.45, 0.65)
        outlines.append(limb(np.array([[foot, 0.1], [foot + lean, fat + long]]), 0.16, 0.13))
    s = np.linspace(0, 1, 9)
    lift, curl = rng.uniform(-0.9, 0.2), rng.uniform(-0.6, 0.6)
    tail = np.stack([-0.85 - 0.75 * s, lift * s + curl * np.sin(np.pi * s) - 0.1], 1)
    outlines.append(limb(tail, 0.2, 0.07))
    return outlines


def _body_colours(
    rng: np.random.Generator, kind: int, pose: _Pose, cover: npt.NDArray[np.bool_], *, own_pattern: bool
) -> Array:
    hue = _HUES[kind] + rng.normal(0, 0.05) if rng.uniform() < _OWN_HUE else rng.uniform()
    own_pattern |= bool(rng.uniform() < _OWN_PATTERN)
    style = kind if own_pattern else int(rng.integers(len(PATTERNS)))
    base = np.array(rgb(hue, rng.uniform(0.25, 0.5), rng.uniform(0.65, 0.85)), np.float32)
    mark = np.array(rgb(hue + rng.normal(0, 0.04), rng.uniform(0.4, 0.65), rng.uniform(0.3, 0.45)), np.float32)
    rows, columns = (index.astype(np.float32) for index in np.nonzero(cover))
    drawn = np.zeros(cover.shape, bool)
    drawn[cover] = PATTERNS[style](rng, *pose.back(columns, rows), rng.uniform(0.28, 0.4))
    light = photo_piece(rng, ("grass", "fur", "tissue"), cover.shape, (0.5, 1.0)) * roundness(cover)
    return np.asarray(np.where(drawn[..., None], mark, base) * light[..., None], np.float32)


# Patterns of the body: (rng, x, y, scale) -> where the marks are.


def _stripes(rng: np.random.Generator, x: Array, y: Array, scale: float) -> npt.NDArray[np.bool_]:
    wave = x + 0.25 * scale * np.sin(y * 3 / scale + rng.uniform(0, 6))
    return np.asarray(np.sin(wave * 2 * np.pi / scale + rng.uniform(0, 6)) > 0.25)


def _cells(rng: np.random.Generator, x: Array, y: Array, scale: float) -> tuple[Array, Array]:
    """Return the distances to the nearest and the second nearest of scattered points, in units of `scale`."""
    from scipy.spatial import cKDTree

    low, high = np.array([x.min(), y.min()]), np.array([x.max(), y.max()])
    grid = np.stack(np.meshgrid(*(np.arange(a, b + scale, scale) for a, b in zip(low, high, strict=True))), -1)
    points = grid.reshape(-1, 2) + rng.uniform(-0.35, 0.35, (grid.size // 2, 2)) * scale
    distance, _ = cKDTree(points).query(np.stack([x, y], -1), k=2)
    return np.asarray(distance[..., 0] / scale, np.float32), np.asarray(distance[..., 1] / scale, np.float32)


def _spots(rng: np.random.Generator, x: Array, y: Array, scale: float) -> npt.NDArray[np.bool_]:
    return np.asarray(_cells(rng, x, y, scale * 1.1)[0] < 0.33)


def _rings(rng: np.random.Generator, x: Array, y: Array, scale: float) -> npt.NDArray[np.bool_]:
    return np.asarray(np.abs(_cells(rng, x, y, scale * 1.4)[0] - 0.33) < 0.1)


def _net(rng: np.random.Generator, x: Array, y: Array, scale: float) -> npt.NDArray[np.bool_]:
    near, far = _cells(rng, x, y, scale * 1.2)
    return np.asarray(far - near < 0.16)


_Pattern = Callable[[np.random.Generator, Array, Array, float], npt.NDArray[np.bool_]]
PATTERNS: tuple[_Pattern, ...] = (_stripes, _spots, _rings, _net)
_HUES = (0.07, 0.75, 0.36, 0.57)  # of the bodies that follow their class
