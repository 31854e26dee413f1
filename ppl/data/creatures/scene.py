"""Draw a scene: a ground, stones, one to three creatures, leaves."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from PIL import Image

from ppl.data.creatures.bodies import draw_creature
from ppl.data.creatures.drawing import Array, Figure
from ppl.data.creatures.heads import HEADS
from ppl.data.creatures.surroundings import draw_bush, draw_ground, draw_leaf, draw_stone, middle_of_head

__all__ = ["draw_scene"]

_HIDDEN_HEADS = 0.3  # share of creatures with their head behind a bush
_SHARP = 3  # pictures are drawn this many times larger and shrunk


def draw_scene(
    rng: np.random.Generator, size: int
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """Draw one picture.

    Returns:
        (size, size, 3) uint8 RGB; (size, size) uint8 mask of classes, 0 background; (size, size) uint8 mask of parts.

    Example:
        >>> image, mask, parts = draw_scene(np.random.default_rng(3), 64)
        >>> bool(((mask > 0) == (parts > 0)).all())
        True
    """
    canvas = _Canvas(size, draw_ground(rng, size * _SHARP))
    for _ in range(rng.integers(0, 3)):
        stone = draw_stone(rng, size * _SHARP)
        stone.place(rng.uniform(0, 1, 2) * size * _SHARP)
        canvas.paste(stone)
    count = int(rng.choice([1, 2, 3], p=[0.45, 0.4, 0.15]))
    for kind in rng.integers(0, len(HEADS), count):
        shy = bool(rng.uniform() < _HIDDEN_HEADS)
        figure = draw_creature(rng, int(kind), size * _SHARP, crowd=count, own_pattern=shy)
        bush = draw_bush(rng, figure) if shy else None
        for _ in range(12):  # look for a place where no other creature is hidden
            figure.place(rng.uniform(0.2, 0.8, 2) * size * _SHARP)
            if bush is not None:
                bush.place(middle_of_head(figure))
            if canvas.hides_little(figure) and (bush is None or canvas.hides_little(bush)):
                canvas.paste(figure)
                if bush is not None:
                    canvas.paste(bush)
                break
    for _ in range(rng.integers(0, 4)):
        leaf = draw_leaf(rng, size * _SHARP)
        leaf.place(rng.uniform(0, 1, 2) * size * _SHARP)
        if canvas.hides_little(leaf, most=0.35):
            canvas.paste(leaf)
    return canvas.shrunk()


@dataclass
class _Canvas:
    size: int
    pixels: Array
    owner: npt.NDArray[np.uint8] = field(init=False)
    parts: npt.NDArray[np.uint8] = field(init=False)
    kinds: list[int] = field(default_factory=lambda: [0])
    areas: list[list[int]] = field(default_factory=lambda: [[0, 0, 0]])

    def __post_init__(self) -> None:
        self.owner = np.zeros(self.pixels.shape[:2], np.uint8)
        self.parts = np.zeros(self.pixels.shape[:2], np.uint8)

    def _window(self, figure: Figure) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
        (top, left), (height, width) = figure.corner, figure.cover.shape
        side = len(self.owner)
        up, down = max(0, top), min(side, top + height)
        near, far = max(0, left), min(side, left + width)
        return (slice(up, max(up, down)), slice(near, max(near, far))), (
            slice(up - top, max(up, down) - top),
            slice(near - left, max(near, far) - left),
        )

    def hides_little(self, figure: Figure, most: float = 0.4) -> bool:
        """Return whether a new figure leaves enough of every head and body visible, its own included."""
        here, there = self._window(figure)
        cover = figure.cover[there]
        if figure.kind and cover.sum() < 0.85 * figure.cover.sum():
            return False  # too much of the figure is outside the picture
        for index in range(1, len(self.kinds)):
            mine = self.owner[here] == index
            for part in (1, 2):
                before = int((self.parts[self.owner == index] == part).sum())
                lost = int((mine & cover & (self.parts[here] == part)).sum())
                if before - lost < (1 - most) * self.areas[index][part]:
                    return False
        return True

    def paste(self, figure: Figure) -> None:
        here, there = self._window(figure)
        cover = figure.cover[there]
        self.pixels[here][cover] = figure.colours[there][cover]
        self.parts[here][cover] = figure.parts[there][cover]
        self.owner[here][cover] = len(self.kinds) if figure.kind else 0
        if figure.kind:
            self.kinds.append(figure.kind)
            self.areas.append([int((figure.parts == part).sum()) for part in range(3)])

    def shrunk(self) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
        picture = Image.fromarray(np.round(self.pixels.clip(0, 1) * 255).astype(np.uint8))
        image = np.asarray(picture.resize((self.size, self.size), Image.Resampling.BOX))
        middle = slice(_SHARP // 2, None, _SHARP)  # the drawn pixel at the centre of each final pixel
        owner, parts = self.owner[middle, middle], self.parts[middle, middle]
        return image, np.array(self.kinds, np.uint8)[owner], np.where(owner > 0, parts, 0).astype(np.uint8)
