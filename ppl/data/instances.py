"""Draw class masks from the outlines of instances: polygons and COCO's run-length codes."""

from __future__ import annotations

import reprlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ppl.errors import PPLError
from ppl.io import BadImageError

__all__ = ["Instance", "InstanceMask", "decode_runs", "encode_runs"]

Box = tuple[float, float, float, float]


class Instance(NamedTuple):
    """One object of an image.

    Attributes:
        label: class index 0..K-1, or 254 for a region to ignore, which is drawn as 255.
        area: area in pixels; smaller instances are drawn over larger ones.
        outline: COCO segmentation: a list of polygons, or a run-length code.
        box: (left, top, width, height), to check a run-length code; None if unknown.
    """

    label: int
    area: float
    outline: Any
    box: Box | None = None


@dataclass(frozen=True)
class InstanceMask:
    """A class mask that is drawn from an image's instances.

    Smaller instances are drawn over larger ones, and later ones over earlier ones of the same area. A crowd counts as
    its class.

    Attributes:
        size: (height, width).
        instances: `Instance`s, or tuples of their fields.
        source: name of the annotation file, for messages.

    Example:
        >>> InstanceMask((3, 4), ((1, 4.0, [[1, 0, 3, 0, 3, 2, 1, 2]]),)).read().tolist()
        [[0, 2, 2, 0], [0, 2, 2, 0], [0, 0, 0, 0]]
    """

    size: tuple[int, int]
    instances: tuple[tuple[Any, ...], ...]
    source: str = "the annotations file"

    def read(self) -> npt.NDArray[np.uint8]:
        """Return (H, W) uint8 class indices, 0 background.

        Raises:
            PPLValueError: if an outline or the size is damaged.
        """
        try:
            return self._draw()
        except PPLError:
            raise
        except Exception as error:  # annotations may hold anything; numpy raises many types
            what = f"{type(error).__name__}: {error}"
            raise BadImageError(f"its outlines cannot be drawn ({what}); mend them in {self.source}") from error

    def _draw(self) -> npt.NDArray[np.uint8]:
        mask = np.zeros(self.size, np.uint8)
        for instance in sorted((Instance(*entry) for entry in self.instances), key=lambda instance: -instance.area):
            if isinstance(instance.outline, dict):
                mask[decode_runs(instance.outline, self.size, instance.box)] = instance.label + 1
                continue
            outline = instance.outline
            if len(outline) and np.ndim(outline[0]) == 0:  # one polygon that is no list of polygons
                outline = [outline]
            # points and lines beside polygons have no area
            polygons = [corners for corners in outline if np.size(corners) not in (2, 4)]
            for polygon in polygons or outline:
                self._fill(mask, polygon, instance.label + 1)
        return mask

    def _fill(self, mask: npt.NDArray[np.uint8], polygon: Sequence[float], value: int) -> None:
        from skimage.draw import polygon as draw

        numbers = np.asarray(polygon, np.float64)
        if numbers.ndim == 2 and numbers.shape[1] == 2:  # corners as pairs
            numbers = numbers.ravel()
        if numbers.ndim != 1 or numbers.size < 6 or numbers.size % 2 or not np.isfinite(numbers).all():
            what = f"a polygon is {reprlib.repr(polygon)}, not x and y of three corners or more"
            raise BadImageError(f"{what}; mend it in {self.source}")
        if numbers.min() >= 0 and numbers.max() <= 1 and min(mask.shape) > 2:
            what = f"a polygon is {reprlib.repr(numbers.tolist())}, all within the first pixel"
            raise BadImageError(f"{what}: are these fractions? Write pixels into {self.source}")
        corners = numbers.reshape(-1, 2)
        # COCO's origin is the corner of the top-left pixel, scikit-image's is the centre of that pixel
        rows, columns = draw(corners[:, 1] - 0.5, corners[:, 0] - 0.5, shape=mask.shape)
        mask[rows, columns] = value


def decode_runs(code: dict[str, Any], size: tuple[int, int], box: Box | None = None) -> npt.NDArray[np.bool_]:
    """Decode a run-length code of COCO: runs of 0 and 1 in turn, column by column.

    Some tools write runs row by row, or swap height and width. The instance's box tells: the order is the one whose
    mask fills the box.

    Args:
        code: `counts`, a list or COCO's compressed text, and `size`.
        size: (height, width) of the image.
        box: (left, top, width, height) of the instance, if known.

    Returns:
        (H, W) mask.

    Raises:
        BadImageError: if the runs do not cover the image, or contradict `box`, or `size` is not the code's own size
            and there is no box to decide.

    Example:
        >>> decode_runs({"counts": [1, 2, 1], "size": [2, 2]}, (2, 2)).astype(int).tolist()
        [[0, 1], [1, 0]]
    """
    counts = code["counts"]
    runs = _unpack_runs(counts) if isinstance(counts, str) else counts
    covered = sum(runs)  # before the array is made: a damaged code may ask for more memory than there is
    if covered != size[0] * size[1]:
        raise BadImageError(f"a run-length code covers {covered} pixels of an image of {size}; the file is damaged")
    flat = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    by_column, by_row = flat.reshape(size, order="F"), flat.reshape(size)
    if box is None or min(box[2:]) <= 0 or not flat.any():
        own = tuple(code.get("size", size))
        if own != tuple(size):
            fix = "write height before width, or give the instance a bbox"
            raise BadImageError(f"a run-length code is of size {own}, but the image is {size} (height, width); {fix}")
        return by_column
    order = max((by_column, by_row), key=lambda mask: _overlap(_bounds(mask), box))  # the first of two equals
    if _overlap(_bounds(order), box) >= _SAME_BOX:
        return order
    raise BadImageError(
        f"a run-length code fills the box {_bounds(by_column)}, but its bbox is {tuple(box)} (left, top, width, "
        "height); encode the mask again"
    )


def encode_runs(mask: npt.NDArray[np.bool_]) -> dict[str, Any]:
    """Encode a mask as COCO's compressed run-length code, byte for byte as pycocotools does.

    Args:
        mask: (H, W) mask.

    Returns:
        `size`, (height, width), and `counts`, text.

    Example:
        >>> encode_runs(np.array([[False, True], [True, False]]))
        {'size': [2, 2], 'counts': '121'}
    """
    flat = mask.ravel(order="F")
    ends = np.append(np.flatnonzero(flat[1:] != flat[:-1]) + 1, flat.size)
    runs = np.diff(ends, prepend=0).tolist()
    if flat[0]:  # runs begin with zeros
        runs = [0, *runs]
    text = ""
    for index, run in enumerate(runs):
        value = run - runs[index - 2] if index > 2 else run
        more = True
        while more:
            bits, value = value & 0x1F, value >> 5
            more = value != (-1 if bits & 0x10 else 0)
            text += chr(48 + bits + (0x20 if more else 0))
    return {"size": list(mask.shape), "counts": text}


_SAME_BOX = 0.7
"""Intersection over union from which two boxes count as the same; tools round by a pixel or two."""


def _bounds(mask: npt.NDArray[np.bool_]) -> Box:
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return (
        *(float(columns[0]), float(rows[0])),
        *(float(columns[-1] - columns[0] + 1), float(rows[-1] - rows[0] + 1)),
    )


def _overlap(one: Box, other: Box) -> float:
    """Return the intersection over union of two boxes."""
    sides = [min(one[i] + one[i + 2], other[i] + other[i + 2]) - max(one[i], other[i]) for i in (0, 1)]
    shared = max(0.0, sides[0]) * max(0.0, sides[1])
    return shared / (one[2] * one[3] + other[2] * other[3] - shared)


def _unpack_runs(text: str) -> list[int]:
    """Decode COCO's compressed runs.

    Each character holds 5 bits, low bits first. From the fourth run on, the number is the difference to the run two
    places before.
    """
    runs: list[int] = []
    value = shift = 0
    for byte in text.encode("ascii"):
        bits = byte - 48
        value |= (bits & 0x1F) << shift
        shift += 5
        if bits & 0x20:  # the number goes on in the next character
            continue
        if bits & 0x10:  # sign
            value -= 1 << shift
        runs.append(value + runs[-2] if len(runs) > 2 else value)
        value = shift = 0
    return runs
