"""Both lattices of one image, built tile by tile."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ppl.refine.crf.native import lattice
from ppl.refine.crf.native.lattice import TILE

__all__ = ["LONGEST", "Lattices", "Vertices"]

LONGEST = 64
"""Pixels in a group at most, so that the rows of a group stay in the first-level cache."""


class Vertices:
    """The vertices of one lattice while it grows: their codes, and a hash table over these."""

    def __init__(self, extents: list[int], deviations: list[float]) -> None:
        self.tables = lattice.coordinate_tables(extents, deviations)
        self.code = lattice.code_strides(self.tables)
        self.offsets = lattice.set_offsets(self.code[1])
        self.corners = len(extents) + 1
        self.count = 0
        self.table: NDArray[np.int32] = np.full(1 << 16, -1, np.int32)
        self.codes: NDArray[np.int64] = np.empty(1 << 15, np.int64)

    def reserve(self, extra: int) -> None:
        """Make room for `extra` more vertices; the hash table is never more than half full."""
        needed = self.count + extra
        if needed > len(self.codes):
            codes = np.empty(2 * needed, np.int64)
            codes[: self.count] = self.codes[: self.count]
            self.codes = codes
        if 2 * needed > len(self.table):
            self.table = np.empty(4 * len(self.table), np.int32)
            lattice.rehash(self.codes, self.count, self.table)

    def add_origin(self) -> None:
        """Add the vertices that a point at the origin touches, which no pixel may."""
        self.reserve(self.corners)
        lows, strides = self.code
        for k in range(self.corners):
            # All residuals tie, so that the last k coordinates make the set m_k.
            members = ((1 << k) - 1) << (self.corners - k)
            code = int(self.offsets[members] - (lows * strides).sum())
            self.count = max(self.count, lattice.insert(code, self.table, self.codes, self.count) + 1)

    def chains(self) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """The chains of neighbours along each axis and where those of an axis end: see `lattice.chains`."""
        links = np.empty(2 * self.count * self.corners + 1, np.int32)
        ends = np.zeros(self.corners + 1, np.int64)
        scratch = (
            np.empty(self.count + 1, np.int32),
            np.empty(self.count + 1, np.int32),
            np.empty(self.count + 1, np.bool_),
        )
        filled = lattice.chains(self.codes, self.count, self.table, self.code[1], *scratch, links, ends)
        return links[:filled], ends


class Lattices:
    """Both lattices of an image over its N pixels, which are taken tile by tile and sorted by 5-D simplex.

    Attributes:
        colour: the 5-D lattice.
        space: the 2-D lattice.
        order: (N,) the pixel at each position.
        starts: (S+1,) where each group of pixels that share a 5-D simplex begins.
        group_vertices: (S*6,) the 5-D vertices of each group.
        group_weights: (N*6,) their weights at each position.
        point_vertices: (N*3,) the 2-D vertices of each position.
        point_weights: (N*3,) their weights.
    """

    def __init__(
        self, image: NDArray[np.uint8], gaussian_sxy: float, bilateral_sxy: float, bilateral_srgb: float
    ) -> None:
        height, width = image.shape[:2]
        n = height * width
        self.space = Vertices([width, height], [gaussian_sxy] * 2)
        self.colour = Vertices([width, height, 256, 256, 256], [bilateral_sxy] * 2 + [bilateral_srgb] * 3)
        self.order = np.empty(n, np.int32)
        self.group_weights = np.empty(n * 6, np.float32)
        self.point_vertices = np.empty(n * 3, np.int32)
        self.point_weights = np.empty(n * 3, np.float32)
        # There are at most as many groups as pixels, and memory that is never touched is never handed out.
        self.starts = np.empty(n + 1, np.int32)
        self.group_vertices = np.empty(n * 6, np.int32)
        groups = self._visit_tiles(image)
        if n % 4:
            # pydensecrf works on four pixels at a time and pads the last four with points at the origin.
            self.colour.add_origin()
            self.space.add_origin()
        self.starts = self.starts[: groups + 1]
        self.starts[groups] = n
        self.group_vertices = self.group_vertices[: groups * 6]

    def _visit_tiles(self, image: NDArray[np.uint8]) -> int:
        height, width = image.shape[:2]
        scratch = _Scratch()
        groups = done = 0
        # One kernel for each stage, called from here: a single kernel around them would double the time to compile.
        for top in range(0, height, TILE):
            for left in range(0, width, TILE):
                tile = top, left, min(TILE, height - top), min(TILE, width - left)
                simplices = scratch.find(self.colour, image, tile)
                groups = lattice.sort(
                    *tile, width, done, groups, simplices, scratch.simplex_of, scratch.pairs, scratch.weights,
                    scratch.begins, scratch.positions, LONGEST, self.order, self.starts, self.group_vertices,
                    self.group_weights,
                )  # fmt: skip
                scratch.find(self.space, image, tile)
                pixels = tile[2] * tile[3]
                lattice.place(
                    pixels, scratch.simplex_of, scratch.pairs, scratch.weights, scratch.positions,
                    self.point_vertices, self.point_weights,
                )  # fmt: skip
                done += pixels
        return groups

    @property
    def touched(self) -> tuple[NDArray[Any], ...]:
        """Which vertices every position touches, with what weights, as the kernels of `sweep` take them."""
        return self.starts, self.group_vertices, self.group_weights, self.point_vertices, self.point_weights


class _Scratch:
    """What the stages of one tile hand to each other."""

    def __init__(self) -> None:
        room = TILE * TILE
        self.work = np.empty((6, 8, room), np.float32)
        self.weights = self.work[5]
        self.codes = np.empty(room, np.int64)
        self.orders = np.empty(room, np.int32)
        self.simplex_of = np.empty(room, np.int32)
        self.positions = np.empty(room, np.int32)
        self.begins = np.empty(room + 1, np.int32)
        self.pairs = np.empty(room * 6, np.int32)
        self._fresh = np.empty(room * 6 + 1, np.int32)  # a candidate is written before it is counted
        self._local = np.empty(room * 64, np.int32)
        self._tables = np.empty(2 * room, np.int32), np.empty(2 * room, np.int32)
        self._cell_codes = np.empty(room, np.int64)
        self._cell_of = np.empty(room, np.int32)
        self._simplex_orders = np.empty(room, np.int32)

    def find(self, vertices: Vertices, image: NDArray[np.uint8], tile: tuple[int, int, int, int]) -> int:
        """Fill `weights`, `simplex_of` and, with vertices, `pairs` for a tile; return how many simplices it has."""
        lows, strides = vertices.code
        pixels = tile[2] * tile[3]
        vertices.reserve(pixels * vertices.corners)
        lattice.embed(vertices.tables, image, *tile, lows, strides, self.work, self.codes, self.orders)
        found = self._cell_codes, self._cell_of, self._simplex_orders
        cells, simplices = lattice.group(pixels, self.codes, self.orders, *self._tables, self.simplex_of, *found)
        vertices.count = lattice.resolve(
            cells, simplices, vertices.corners, self._cell_of, self._simplex_orders, self._cell_codes,
            vertices.offsets, self._local, self.pairs, self._fresh, vertices.table, vertices.codes, vertices.count,
        )  # fmt: skip
        return int(simplices)
