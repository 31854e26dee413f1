"""A sample set drawn from seeds: creatures whose head tells them apart and whose body is the larger part.

It is made so that a plain class activation map fails on it in the way that patch learning is meant to mend. The head
has a shape, a face and a colour of its own per class; the body, several times larger, only leans towards a pattern and
a hue, which the other classes wear too. A classifier can live off the heads, and its maps then leave the bodies out.
Some heads are behind a bush (such bodies always wear their own pattern), so that there is something to be learnt from
a body alone, as a patch without a head asks for. What comes after such a one finds no place any more: no further
creature, and no leaf.
Part masks say how much of either is covered. Backgrounds, stones and leaves are the same for all classes.
"""

from __future__ import annotations

import json
import operator
import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter

from ppl.errors import PPLValueError
from ppl.io import atomic_folder, mask_image

__all__ = ["CREATURES", "CREATURE_PARTS", "draw_scene", "make_creatures"]

CREATURES = ("cat", "owl", "frog", "ram")
CREATURE_PARTS = ("head", "body")

_VERSION = 1  # rises when the same seed draws other pictures
_OWN_PATTERN = 0.85  # share of bodies in the pattern of their class; the rest wear any pattern
_OWN_HUE = 0.7  # share of bodies in a hue near that of their class; the rest have any hue
_HIDDEN_HEADS = 0.3  # share of creatures with their head behind a bush
_SHARP = 3  # pictures are drawn this many times larger and shrunk

Array = npt.NDArray[np.float32]
Points = npt.NDArray[np.float64]
Colour = tuple[float, float, float]


def make_creatures(
    root: str | os.PathLike[str], train: int = 400, val: int = 100, size: int = 128, seed: int = 0
) -> Path:
    """Write the sample set in the folder layout of `read_folder`, with masks of creatures and of their parts.

    The same arguments give the same bytes. A second call finds the set and returns at once; a killed one leaves
    nothing behind that could be taken for the set. Nothing is downloaded: the textures are photographs that ship with
    scikit-image.

    Args:
        root: the folder to make.
        train: number of images in the split "train".
        val: number of images in the split "val".
        size: height and width in pixels.
        seed: of everything that is drawn.

    Returns:
        `root`, now holding `images`, `masks` (class of the creature), `masks_parts` (see `PartMasks`), `labels.csv`,
        `classes.txt`, `train.txt`, `val.txt` and `creatures.json`.

    Raises:
        PPLValueError: if a number makes no sense, or `root` holds a sample set of other arguments or a broken one.
        FileWriteError: if `root` holds something else or cannot be written.

    Example:
        >>> import tempfile
        >>> from ppl.data import read_folder
        >>> folder = tempfile.TemporaryDirectory()
        >>> root = make_creatures(Path(folder.name) / "creatures", train=6, val=2, size=48)
        >>> len(read_folder(root, "train")), sorted(path.name for path in root.glob("*.txt"))
        (6, ['classes.txt', 'train.txt', 'val.txt'])
        >>> folder.cleanup()
    """
    try:
        train, val, size, seed = map(operator.index, (train, val, size, seed))
    except TypeError as error:
        raise PPLValueError(f"train={train}, val={val}, size={size}, seed={seed} must be whole numbers") from error
    if min(train, val) < 0 or train + val < 1 or size < 32:
        raise PPLValueError(f"train={train}, val={val}, size={size}: draw at least one image of at least 32 pixels")
    if seed < 0:
        raise PPLValueError(f"seed is {seed}; give 0 or a positive number")
    root = Path(root)
    recipe = {"version": _VERSION, "train": train, "val": val, "size": size, "seed": seed}
    if (root / "creatures.json").is_file():
        found = _found_recipe(root / "creatures.json")
        if found != recipe:
            raise PPLValueError(f"{root} holds a sample set of {found}, asked for is {recipe}; choose another folder")
        return root
    from joblib import Parallel, delayed

    image_ids = {"train": [f"train_{i:04d}" for i in range(train)], "val": [f"val_{i:04d}" for i in range(val)]}
    jobs = [
        (image_id, (seed, part, i))
        for part, split in enumerate(image_ids)
        for i, image_id in enumerate(image_ids[split])
    ]
    with atomic_folder(root) as folder:
        for name in ("images", "masks", "masks_parts"):
            (folder / name).mkdir()
        workers = min(os.cpu_count() or 1, 1 + len(jobs) // 150)
        rows = Parallel(n_jobs=workers)(delayed(_write)(folder, image_id, key, size) for image_id, key in jobs)
        (folder / "labels.csv").write_text("image,labels\n" + "".join(f"{row}\n" for row in rows))
        (folder / "classes.txt").write_text("".join(f"{name}\n" for name in CREATURES))
        for split, names in image_ids.items():
            (folder / f"{split}.txt").write_text("".join(f"{name}\n" for name in names))
        (folder / "masks_parts" / "parts.txt").write_text("".join(f"{name}\n" for name in CREATURE_PARTS))
        (folder / "creatures.json").write_text(json.dumps(recipe))
    return root


def _found_recipe(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise PPLValueError(f"{path} is broken ({error}); remove {path.parent}, then it is made again") from error


def _write(folder: Path, image_id: str, key: tuple[int, ...], size: int) -> str:
    image, mask, parts = draw_scene(np.random.default_rng(key), size)
    Image.fromarray(image).save(folder / "images" / f"{image_id}.jpg", quality=92)
    mask_image(mask).save(folder / "masks" / f"{image_id}.png")
    mask_image(parts).save(folder / "masks_parts" / f"{image_id}.png")
    present = [name for index, name in enumerate(CREATURES, start=1) if (mask == index).any()]
    return f"{image_id}.jpg,{';'.join(present)}"


# --- a scene: texture, stones, one to three creatures, leaves --------------------------------------------------------


def draw_scene(
    rng: np.random.Generator, size: int
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """Draw one picture.

    Args:
        rng: decides everything.
        size: height and width.

    Returns:
        (size, size, 3) uint8 RGB; (size, size) uint8 mask of classes, 0 background; (size, size) uint8 mask of parts.

    Example:
        >>> image, mask, parts = draw_scene(np.random.default_rng(3), 64)
        >>> bool(((mask > 0) == (parts > 0)).all())
        True
    """
    canvas = _Canvas(size, _ground(rng, size * _SHARP))
    for _ in range(rng.integers(0, 3)):
        stone = _stone(rng, size * _SHARP)
        stone.place(rng.uniform(0, 1, 2) * size * _SHARP)
        canvas.paste(stone)
    count = int(rng.choice([1, 2, 3], p=[0.45, 0.4, 0.15]))
    for kind in rng.integers(0, len(CREATURES), count):
        shy = bool(rng.uniform() < _HIDDEN_HEADS)
        figure = _creature(rng, int(kind), size * _SHARP, crowd=count, own_pattern=shy)
        bush = _bush(rng, figure) if shy else None
        for _ in range(12):  # look for a place where nobody else is hidden
            figure.place(rng.uniform(0.2, 0.8, 2) * size * _SHARP)
            if bush is not None:
                bush.place(_middle_of_head(figure))
            if canvas.hides_little(figure) and (bush is None or canvas.hides_little(bush)):
                canvas.paste(figure)
                if bush is not None:
                    canvas.paste(bush)
                break
    for _ in range(rng.integers(0, 4)):
        leaf = _leaf(rng, size * _SHARP)
        leaf.place(rng.uniform(0, 1, 2) * size * _SHARP)
        if canvas.hides_little(leaf, most=0.35):
            canvas.paste(leaf)
    return canvas.shrunk()


@dataclass
class _Figure:
    """Something to be pasted: colours, where it covers, what it is."""

    colours: Array  # (h, w, 3) 0..1
    cover: npt.NDArray[np.bool_]  # (h, w)
    parts: npt.NDArray[np.uint8]  # (h, w)
    kind: int = 0
    corner: tuple[int, int] = (0, 0)  # top, left on the sharp canvas

    def place(self, centre: Points) -> None:
        """Move it so that its middle lies at (row, column)."""
        height, width = self.cover.shape
        self.corner = int(centre[0]) - height // 2, int(centre[1]) - width // 2


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

    def _window(self, figure: _Figure) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
        (top, left), (height, width) = figure.corner, figure.cover.shape
        side = len(self.owner)
        up, down = max(0, top), min(side, top + height)
        near, far = max(0, left), min(side, left + width)
        return (slice(up, max(up, down)), slice(near, max(near, far))), (
            slice(up - top, max(up, down) - top),
            slice(near - left, max(near, far) - left),
        )

    def hides_little(self, figure: _Figure, most: float = 0.4) -> bool:
        """Whether everyone, the newcomer too, would keep enough of head and body in sight."""
        here, there = self._window(figure)
        cover = figure.cover[there]
        if figure.kind and cover.sum() < 0.85 * figure.cover.sum():
            return False  # too much outside the picture
        for index in range(1, len(self.kinds)):
            mine = self.owner[here] == index
            for part in (1, 2):
                before = int((self.parts[self.owner == index] == part).sum())
                lost = int((mine & cover & (self.parts[here] == part)).sum())
                if before - lost < (1 - most) * self.areas[index][part]:
                    return False
        return True

    def paste(self, figure: _Figure) -> None:
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
        middle = slice(_SHARP // 2, None, _SHARP)  # the drawn pixel at the centre of each final one
        owner, parts = self.owner[middle, middle], self.parts[middle, middle]
        return image, np.array(self.kinds, np.uint8)[owner], np.where(owner > 0, parts, 0).astype(np.uint8)


# --- surroundings: the same for every class --------------------------------------------------------------------------


@lru_cache(maxsize=1)
def _textures() -> dict[str, Array]:
    """Photographs as luminance around 1."""
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


def _photo(
    rng: np.random.Generator, names: tuple[str, ...], shape: tuple[int, int], zoom: tuple[float, float]
) -> Array:
    """A random piece of one of the photographs, at a random scale, turned and mirrored at random."""
    photo = _textures()[names[rng.integers(len(names))]]
    photo = np.rot90(photo, int(rng.integers(4)))
    scale = rng.uniform(*zoom)
    height = min(photo.shape[0], max(8, int(shape[0] / scale)))
    width = min(photo.shape[1], max(8, int(shape[1] / scale)))
    top, left = rng.integers(photo.shape[0] - height + 1), rng.integers(photo.shape[1] - width + 1)
    piece = Image.fromarray(np.ascontiguousarray(photo[top : top + height, left : left + width]))
    piece = piece.resize((shape[1], shape[0]), Image.Resampling.BILINEAR)
    return np.asarray(piece, np.float32)


def _ground(rng: np.random.Generator, side: int) -> Array:
    light = _photo(rng, ("gravel", "brick", "grass", "moon", "wood"), (side, side), (0.9, 2.2))
    colour = _rgb(rng.uniform(), rng.uniform(0.1, 0.35), rng.uniform(0.45, 0.75))
    return (light[..., None] * np.array(colour, np.float32)).astype(np.float32)


def _stone(rng: np.random.Generator, side: int) -> _Figure:
    """A lump in any pattern and hue, so that a patterned surface alone is no creature."""
    radius = side * rng.uniform(0.06, 0.14)
    angle = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    wobble = 1 + 0.12 * rng.normal(size=24).clip(-1.5, 1.5)
    outline = np.stack([np.cos(angle) * rng.uniform(0.9, 1.5), np.sin(angle)], 1) * (radius * wobble)[:, None]
    colour = _rgb(rng.uniform(), rng.uniform(0.2, 0.6), rng.uniform(0.4, 0.8))
    return _loose(rng, side, outline, colour, pattern=rng.uniform() < 0.6)


def _bush(rng: np.random.Generator, figure: _Figure) -> _Figure:
    """Foliage in front of a creature's head."""
    rows, columns = np.nonzero(figure.parts == 1)
    radius = 0.62 * max(np.ptp(rows), np.ptp(columns))
    angle = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    edge = radius * (1 + 0.1 * np.sin(7 * angle + rng.uniform(0, 6)) + 0.05 * rng.normal(size=40))
    outline = np.stack([np.cos(angle), np.sin(angle)], 1) * edge[:, None]
    colour = _rgb(rng.uniform(0.08, 0.4), rng.uniform(0.4, 0.65), rng.uniform(0.35, 0.6))
    return _loose(rng, 3 * int(radius), outline, colour, pattern=False)


def _middle_of_head(figure: _Figure) -> Points:
    rows, columns = np.nonzero(figure.parts == 1)
    return np.array([rows.mean() + figure.corner[0], columns.mean() + figure.corner[1]])


def _leaf(rng: np.random.Generator, side: int) -> _Figure:
    length, t = side * rng.uniform(0.09, 0.17), np.linspace(0, np.pi, 16)
    half = np.stack([-np.cos(t), 0.38 * np.sin(t) ** 1.5], 1)
    outline = np.concatenate([half, half[::-1] * (1, -1)]) * length
    turn = rng.uniform(0, 2 * np.pi)
    outline = outline @ np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    return _loose(rng, side, outline, _rgb(rng.uniform(0.08, 0.4), 0.6, rng.uniform(0.3, 0.6)), pattern=False)


def _loose(rng: np.random.Generator, side: int, outline: Points, colour: Colour, *, pattern: bool) -> _Figure:
    low = outline.min(0) - 2
    width, height = (int(v) for v in np.ceil(np.ptp(outline, 0) + 4))
    shape = height, width
    cover = _fill(shape, outline - low)
    light = _photo(rng, ("grass", "fur", "moon"), shape, (0.5, 1.2)) * _roundness(cover)
    colours = light[..., None] * np.array(colour, np.float32)
    if pattern:
        rows, columns = np.mgrid[: shape[0], : shape[1]].astype(np.float32)
        drawn = _PATTERNS[rng.integers(len(_PATTERNS))](rng, columns, rows, side * 0.035)
        colours = np.where(drawn[..., None], colours * 0.5, colours)
    return _Figure(colours, cover, np.zeros(shape, np.uint8))


# --- creatures -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Pose:
    """From the creature's own frame (x to the front, y down, body length 2) to pixels."""

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


def _creature(rng: np.random.Generator, kind: int, side: int, crowd: int, *, own_pattern: bool) -> _Figure:
    unit = side * rng.uniform(0.17, 0.25) * (1.0, 0.9, 0.8)[crowd - 1]
    pose = _Pose(unit, rng.uniform(-0.45, 0.45), bool(rng.integers(2)), np.zeros(2))
    body = [pose(outline) for outline in _body_outlines(rng)]
    neck = pose(np.array([[rng.uniform(0.95, 1.15), rng.uniform(-0.75, -0.35)]]))[0]
    head_pose = _Pose(unit * rng.uniform(0.48, 0.58), pose.turn + rng.uniform(-0.3, 0.3), pose.mirror, neck)
    face = [(head_pose(outline), colour) for outline, colour in _HEADS[kind](rng)]

    points = np.concatenate([*body, *(outline for outline, _ in face)])
    low = points.min(0) - 2
    width, height = (int(v) for v in np.ceil(points.max(0) - low + 2))
    cover = np.zeros((height, width), bool)
    for outline in body:
        cover |= _fill((height, width), outline - low)
    colours = _body_colours(rng, kind, replace(pose, shift=-low), cover, own_pattern=own_pattern)
    layer, seen = Image.new("RGB", (width, height)), Image.new("1", (width, height))
    brush, stencil = ImageDraw.Draw(layer), ImageDraw.Draw(seen)
    for outline, colour in face:
        corners = _corners(outline - low)
        brush.polygon(corners, fill=tuple(round(255 * c) for c in colour))
        stencil.polygon(corners, fill=1)
    head = np.array(seen)
    shade = _photo(rng, ("fur", "moon"), head.shape, (0.8, 1.6)) ** 0.5 * _roundness(head)
    colours[head] = (np.asarray(layer, np.float32) / 255 * shade[..., None])[head]
    return _Figure(colours, cover | head, np.where(head, 1, np.where(cover, 2, 0)).astype(np.uint8), kind + 1)


def _body_outlines(rng: np.random.Generator) -> list[Points]:
    """A rump on four legs with a tail; its length is 2."""
    fat, bend = rng.uniform(0.5, 0.75), rng.uniform(-0.25, 0.25)
    t = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    x = np.cos(t)
    rump = np.stack([x, np.sin(t) * fat * (1 + 0.15 * x) + bend * (1 - x**2)], 1)
    outlines = [rump]
    for foot in (-0.72, -0.42, 0.4, 0.7):
        lean, long = rng.uniform(-0.2, 0.2), rng.uniform(0.45, 0.65)
        outlines.append(_limb(np.array([[foot, 0.1], [foot + lean, fat + long]]), 0.16, 0.13))
    s = np.linspace(0, 1, 9)
    lift, curl = rng.uniform(-0.9, 0.2), rng.uniform(-0.6, 0.6)
    tail = np.stack([-0.85 - 0.75 * s, lift * s + curl * np.sin(np.pi * s) - 0.1], 1)
    outlines.append(_limb(tail, 0.2, 0.07))
    return outlines


def _body_colours(
    rng: np.random.Generator, kind: int, pose: _Pose, cover: npt.NDArray[np.bool_], *, own_pattern: bool
) -> Array:
    hue = _HUES[kind] + rng.normal(0, 0.05) if rng.uniform() < _OWN_HUE else rng.uniform()
    own_pattern |= bool(rng.uniform() < _OWN_PATTERN)
    style = kind if own_pattern else int(rng.integers(len(_PATTERNS)))
    base = np.array(_rgb(hue, rng.uniform(0.25, 0.5), rng.uniform(0.65, 0.85)), np.float32)
    mark = np.array(_rgb(hue + rng.normal(0, 0.04), rng.uniform(0.4, 0.65), rng.uniform(0.3, 0.45)), np.float32)
    rows, columns = (index.astype(np.float32) for index in np.nonzero(cover))
    drawn = np.zeros(cover.shape, bool)
    drawn[cover] = _PATTERNS[style](rng, *pose.back(columns, rows), rng.uniform(0.28, 0.4))
    light = _photo(rng, ("grass", "fur", "tissue"), cover.shape, (0.5, 1.0)) * _roundness(cover)
    return np.asarray(np.where(drawn[..., None], mark, base) * light[..., None], np.float32)


# --- patterns of the body: (rng, x, y, scale) -> where the marks are -------------------------------------------------


def _stripes(rng: np.random.Generator, x: Array, y: Array, scale: float) -> npt.NDArray[np.bool_]:
    wave = x + 0.25 * scale * np.sin(y * 3 / scale + rng.uniform(0, 6))
    return np.asarray(np.sin(wave * 2 * np.pi / scale + rng.uniform(0, 6)) > 0.25)


def _cells(rng: np.random.Generator, x: Array, y: Array, scale: float) -> tuple[Array, Array]:
    """Distances to the nearest and the second nearest of scattered points, in units of `scale`."""
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
_PATTERNS: tuple[_Pattern, ...] = (_stripes, _spots, _rings, _net)
_HUES = (0.07, 0.75, 0.36, 0.57)  # of the bodies that follow their class


# --- heads: outlines with colours, in a frame where the head is a disc of radius 1 -----------------------------------

_Shapes = list[tuple[Points, Colour]]
_WHITE, _BLACK = (0.97, 0.97, 0.95), (0.08, 0.07, 0.09)


def _cat(rng: np.random.Generator) -> _Shapes:
    coat = _rgb(rng.uniform(0.04, 0.09), rng.uniform(0.75, 0.9), rng.uniform(0.85, 1.0))
    pink = (0.98, 0.62, 0.66)
    shapes: _Shapes = []
    for x in (-1.0, 1.0):
        shapes.append((np.array([[x * 0.95, 0.0], [x * 0.9, -1.45], [x * 0.1, -0.75]]), coat))
        shapes.append((np.array([[x * 0.8, -0.3], [x * 0.8, -1.15], [x * 0.35, -0.75]]), pink))
    shapes.append((_disc(0, 0, 1.05, 0.92), coat))
    for x in (-0.42, 0.42):
        shapes += [(_disc(x, -0.12, 0.27, 0.24), (0.55, 0.85, 0.25)), (_disc(x, -0.12, 0.09, 0.22), _BLACK)]
    shapes.append((_disc(0, 0.45, 0.5, 0.32), _WHITE))
    shapes.append((np.array([[-0.16, 0.22], [0.16, 0.22], [0, 0.42]]), (0.9, 0.35, 0.42)))
    for y in (0.4, 0.55):
        for x in (-1.0, 1.0):
            shapes.append((_limb(np.array([[x * 0.3, y], [x * 1.3, y + 0.12 * (y - 0.45) * 10]]), 0.03, 0.02), _WHITE))
    return shapes


def _owl(rng: np.random.Generator) -> _Shapes:
    coat = _rgb(rng.uniform(0.72, 0.79), rng.uniform(0.45, 0.6), rng.uniform(0.5, 0.65))
    shapes: _Shapes = []
    for x in (-1.0, 1.0):
        shapes.append((np.array([[x * 0.95, -0.3], [x * 1.0, -1.2], [x * 0.3, -0.8]]), coat))
    shapes.append((_disc(0, 0, 1.05, 1.0), coat))
    for x in (-0.46, 0.46):
        shapes += [
            (_disc(x, -0.08, 0.5), _WHITE),
            (_disc(x, -0.08, 0.36), (0.99, 0.82, 0.1)),
            (_disc(x, -0.08, 0.17), _BLACK),
        ]
    shapes.append((np.array([[-0.2, 0.2], [0.2, 0.2], [0, 0.68]]), (0.98, 0.55, 0.08)))
    return shapes


def _frog(rng: np.random.Generator) -> _Shapes:
    skin = _rgb(rng.uniform(0.29, 0.36), rng.uniform(0.65, 0.85), rng.uniform(0.65, 0.8))
    shapes: _Shapes = [(_disc(0, 0.1, 1.2, 0.82), skin)]
    for x in (-0.6, 0.6):
        shapes += [(_disc(x, -0.65, 0.42), skin), (_disc(x, -0.68, 0.3), _WHITE), (_disc(x, -0.66, 0.15), _BLACK)]
    smile = np.linspace(-0.85, 0.85, 11)
    shapes.append((_limb(np.stack([smile, 0.5 - 0.35 * smile**2], 1), 0.07, 0.07), (0.5, 0.1, 0.15)))
    for x in (-0.8, 0.8):
        shapes.append((_disc(x, 0.12, 0.17, 0.13), (0.98, 0.6, 0.55)))
    return shapes


def _ram(rng: np.random.Generator) -> _Shapes:
    coat = _rgb(rng.uniform(0.56, 0.62), rng.uniform(0.3, 0.5), rng.uniform(0.4, 0.55))
    horn = (0.95, 0.88, 0.62)
    shapes: _Shapes = [(_disc(0, 0.15, 0.72, 1.0), coat)]
    s = np.linspace(0, 1.55 * np.pi, 16)
    for x in (-1.0, 1.0):
        curl = np.stack([x * (0.75 - 0.5 * np.cos(s) * (1 - s / 9)), -0.4 - 0.52 * np.sin(s) * (1 - s / 9)], 1)
        shapes.append((_limb(curl, 0.27, 0.1), horn))
        shapes.append((_disc(x * 0.34, -0.02, 0.18), _WHITE))
        shapes.append((_disc(x * 0.34, 0.0, 0.1), _BLACK))
    shapes.append((_disc(0, 0.72, 0.45, 0.36), (0.85, 0.82, 0.8)))
    for x in (-0.16, 0.16):
        shapes.append((_disc(x, 0.68, 0.07, 0.09), _BLACK))
    return shapes


_HEADS: tuple[Callable[[np.random.Generator], _Shapes], ...] = (_cat, _owl, _frog, _ram)


# --- drawing ---------------------------------------------------------------------------------------------------------


def _disc(x: float, y: float, across: float, down: float | None = None) -> Points:
    t = np.linspace(0, 2 * np.pi, 32, endpoint=False)
    return np.stack([x + across * np.cos(t), y + (across if down is None else down) * np.sin(t)], 1)


def _limb(line: Points, start: float, end: float) -> Points:
    """The outline of a line that is `start` wide to either side at one end and `end` at the other, with round ends."""
    along = np.gradient(line, axis=0)
    along /= np.linalg.norm(along, axis=1, keepdims=True) + 1e-9
    across = np.stack([-along[:, 1], along[:, 0]], 1) * np.linspace(start, end, len(line))[:, None]
    t = np.linspace(np.pi / 2, -np.pi / 2, 8)[1:-1, None]
    cap = line[-1] + end * np.cos(t) * along[-1] + np.sin(t) * across[-1]
    foot = line[0] - start * np.cos(t) * along[0] - np.sin(t) * across[0]
    return np.concatenate([line + across, cap, (line - across)[::-1], foot])


def _fill(shape: tuple[int, ...], outline: Points) -> npt.NDArray[np.bool_]:
    image = Image.new("1", (shape[1], shape[0]))
    ImageDraw.Draw(image).polygon(_corners(outline), fill=1)
    return np.array(image)


def _corners(outline: Points) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in outline]


def _roundness(cover: npt.NDArray[np.bool_]) -> Array:
    """Light that falls off towards the edge and from top to bottom, so that a flat shape looks round."""
    soft = Image.fromarray(cover.astype(np.uint8) * 255).filter(ImageFilter.BoxBlur(max(1, cover.shape[0] // 28)))
    edge = np.asarray(soft, np.float32) / 255
    return (0.45 + 0.6 * edge).astype(np.float32)


def _rgb(hue: float, saturation: float, value: float) -> Colour:
    from colorsys import hsv_to_rgb

    return hsv_to_rgb(hue % 1.0, saturation, value)
