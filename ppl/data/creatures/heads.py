"""Outlines and colours of the heads, in a frame where the head is a disc of radius 1."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ppl.data.creatures.drawing import Colour, Points, disc, limb, rgb

__all__ = ["HEADS"]

Shapes = list[tuple[Points, Colour]]
_WHITE, _BLACK = (0.97, 0.97, 0.95), (0.08, 0.07, 0.09)


def _cat(rng: np.random.Generator) -> Shapes:
    coat = rgb(rng.uniform(0.04, 0.09), rng.uniform(0.75, 0.9), rng.uniform(0.85, 1.0))
    pink = (0.98, 0.62, 0.66)
    shapes: Shapes = []
    for x in (-1.0, 1.0):
        shapes.append((np.array([[x * 0.95, 0.0], [x * 0.9, -1.45], [x * 0.1, -0.75]]), coat))
        shapes.append((np.array([[x * 0.8, -0.3], [x * 0.8, -1.15], [x * 0.35, -0.75]]), pink))
    shapes.append((disc(0, 0, 1.05, 0.92), coat))
    for x in (-0.42, 0.42):
        shapes += [(disc(x, -0.12, 0.27, 0.24), (0.55, 0.85, 0.25)), (disc(x, -0.12, 0.09, 0.22), _BLACK)]
    shapes.append((disc(0, 0.45, 0.5, 0.32), _WHITE))
    shapes.append((np.array([[-0.16, 0.22], [0.16, 0.22], [0, 0.42]]), (0.9, 0.35, 0.42)))
    for y in (0.4, 0.55):
        for x in (-1.0, 1.0):
            shapes.append((limb(np.array([[x * 0.3, y], [x * 1.3, y + 0.12 * (y - 0.45) * 10]]), 0.03, 0.02), _WHITE))
    return shapes


def _owl(rng: np.random.Generator) -> Shapes:
    coat = rgb(rng.uniform(0.72, 0.79), rng.uniform(0.45, 0.6), rng.uniform(0.5, 0.65))
    shapes: Shapes = []
    for x in (-1.0, 1.0):
        shapes.append((np.array([[x * 0.95, -0.3], [x * 1.0, -1.2], [x * 0.3, -0.8]]), coat))
    shapes.append((disc(0, 0, 1.05, 1.0), coat))
    for x in (-0.46, 0.46):
        shapes += [
            (disc(x, -0.08, 0.5), _WHITE),
            (disc(x, -0.08, 0.36), (0.99, 0.82, 0.1)),
            (disc(x, -0.08, 0.17), _BLACK),
        ]
    shapes.append((np.array([[-0.2, 0.2], [0.2, 0.2], [0, 0.68]]), (0.98, 0.55, 0.08)))
    return shapes


def _frog(rng: np.random.Generator) -> Shapes:
    skin = rgb(rng.uniform(0.29, 0.36), rng.uniform(0.65, 0.85), rng.uniform(0.65, 0.8))
    shapes: Shapes = [(disc(0, 0.1, 1.2, 0.82), skin)]
    for x in (-0.6, 0.6):
        shapes += [(disc(x, -0.65, 0.42), skin), (disc(x, -0.68, 0.3), _WHITE), (disc(x, -0.66, 0.15), _BLACK)]
    smile = np.linspace(-0.85, 0.85, 11)
    shapes.append((limb(np.stack([smile, 0.5 - 0.35 * smile**2], 1), 0.07, 0.07), (0.5, 0.1, 0.15)))
    for x in (-0.8, 0.8):
        shapes.append((disc(x, 0.12, 0.17, 0.13), (0.98, 0.6, 0.55)))
    return shapes


def _ram(rng: np.random.Generator) -> Shapes:
    coat = rgb(rng.uniform(0.56, 0.62), rng.uniform(0.3, 0.5), rng.uniform(0.4, 0.55))
    horn = (0.95, 0.88, 0.62)
    shapes: Shapes = [(disc(0, 0.15, 0.72, 1.0), coat)]
    s = np.linspace(0, 1.55 * np.pi, 16)
    for x in (-1.0, 1.0):
        curl = np.stack([x * (0.75 - 0.5 * np.cos(s) * (1 - s / 9)), -0.4 - 0.52 * np.sin(s) * (1 - s / 9)], 1)
        shapes.append((limb(curl, 0.27, 0.1), horn))
        shapes.append((disc(x * 0.34, -0.02, 0.18), _WHITE))
        shapes.append((disc(x * 0.34, 0.0, 0.1), _BLACK))
    shapes.append((disc(0, 0.72, 0.45, 0.36), (0.85, 0.82, 0.8)))
    for x in (-0.16, 0.16):
        shapes.append((disc(x, 0.68, 0.07, 0.09), _BLACK))
    return shapes


HEADS: tuple[Callable[[np.random.Generator], Shapes], ...] = (_cat, _owl, _frog, _ram)
