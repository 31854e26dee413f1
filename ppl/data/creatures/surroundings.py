"""Draw the surroundings, which are the same for every class: ground, stones, bushes, leaves."""

from __future__ import annotations

import numpy as np

from ppl.data.creatures.bodies import PATTERNS
from ppl.data.creatures.drawing import Array, Colour, Figure, Points, fill, photo_piece, rgb, roundness

__all__ = ["draw_bush", "draw_ground", "draw_leaf", "draw_stone", "middle_of_head"]


def draw_ground(rng: np.random.Generator, side: int) -> Array:
    """Draw the background of a whole picture: (side, side, 3) in 0..1."""
    light = photo_piece(rng, ("gravel", "brick", "grass", "moon", "wood"), (side, side), (0.9, 2.2))
    colour = rgb(rng.uniform(), rng.uniform(0.1, 0.35), rng.uniform(0.45, 0.75))
    return (light[..., None] * np.array(colour, np.float32)).astype(np.float32)


def draw_stone(rng: np.random.Generator, side: int) -> Figure:
    """Draw a stone in any pattern and hue, so that a patterned surface alone does not mean a creature."""
    radius = side * rng.uniform(0.06, 0.14)
    angle = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    wobble = 1 + 0.12 * rng.normal(size=24).clip(-1.5, 1.5)
    outline = np.stack([np.cos(angle) * rng.uniform(0.9, 1.5), np.sin(angle)], 1) * (radius * wobble)[:, None]
    colour = rgb(rng.uniform(), rng.uniform(0.2, 0.6), rng.uniform(0.4, 0.8))
    return _loose(rng, side, outline, colour, pattern=rng.uniform() < 0.6)


def draw_bush(rng: np.random.Generator, figure: Figure) -> Figure:
    """Draw foliage in front of a creature's head."""
    rows, columns = np.nonzero(figure.parts == 1)
    radius = 0.62 * max(np.ptp(rows), np.ptp(columns))
    angle = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    edge = radius * (1 + 0.1 * np.sin(7 * angle + rng.uniform(0, 6)) + 0.05 * rng.normal(size=40))
    outline = np.stack([np.cos(angle), np.sin(angle)], 1) * edge[:, None]
    colour = rgb(rng.uniform(0.08, 0.4), rng.uniform(0.4, 0.65), rng.uniform(0.35, 0.6))
    return _loose(rng, 3 * int(radius), outline, colour, pattern=False)


def middle_of_head(figure: Figure) -> Points:
    """Return (row, column) of the middle of a creature's head in the scene."""
    rows, columns = np.nonzero(figure.parts == 1)
    return np.array([rows.mean() + figure.corner[0], columns.mean() + figure.corner[1]])


def draw_leaf(rng: np.random.Generator, side: int) -> Figure:
    """Draw a leaf, to lie over creatures."""
    length, t = side * rng.uniform(0.09, 0.17), np.linspace(0, np.pi, 16)
    half = np.stack([-np.cos(t), 0.38 * np.sin(t) ** 1.5], 1)
    outline = np.concatenate([half, half[::-1] * (1, -1)]) * length
    turn = rng.uniform(0, 2 * np.pi)
    outline = outline @ np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    return _loose(rng, side, outline, rgb(rng.uniform(0.08, 0.4), 0.6, rng.uniform(0.3, 0.6)), pattern=False)


def _loose(rng: np.random.Generator, side: int, outline: Points, colour: Colour, *, pattern: bool) -> Figure:
    low = outline.min(0) - 2
    width, height = (int(v) for v in np.ceil(np.ptp(outline, 0) + 4))
    shape = height, width
    cover = fill(shape, outline - low)
    light = photo_piece(rng, ("grass", "fur", "moon"), shape, (0.5, 1.2)) * roundness(cover)
    colours = light[..., None] * np.array(colour, np.float32)
    if pattern:
        rows, columns = np.mgrid[: shape[0], : shape[1]].astype(np.float32)
        drawn = PATTERNS[rng.integers(len(PATTERNS))](rng, columns, rows, side * 0.035)
        colours = np.where(drawn[..., None], colours * 0.5, colours)
    return Figure(colours, cover, np.zeros(shape, np.uint8))
