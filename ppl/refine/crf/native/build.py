"""Both lattices of one image, built tile by tile."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ppl.refine.crf.native import lattice
from ppl.refine.crf.native.lattice import TILE
from ppl.refine.kernel import compiled

__all__ = ["Lattices", "Vertices"]


class Vertices:
    """The vertices of one lattice while it grows: their codes, and a hash table over these."""

    def __init__(self, extents: list[int], deviations: list[float]) -> None:
        self.tables = lattice.coordinate_tables(extents, deviations)
        self.lows, self.strides = lattice.code_strides(self.tables)
        self.offsets = lattice.set_offsets(self.strides)
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
            compiled(lattice.rehash)(self.codes, self.count, self.table, len(self.table) - 1)

    def add_origin(self) -> None:
        """Add the vertices that a point at the origin touches, which no pixel may."""
        self.reserve(self.corners)
        insert = compiled(lattice.insert)
        for k in range(self.corners):
            # All residuals tie, so that the last k coordinates make the set m_k.
            members = ((1 << k) - 1) << (self.corners - k)
            code = int(self.offsets[members] - (self.lows * self.strides).sum())
            self.count = max(self.count, insert(code, self.table, len(self.table) - 1, self.codes, self.count) + 1)

    def chains(self) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """The chains of neighbours along each axis and where those of an axis end: see `lattice.chains`."""
        links = np.empty(2 * self.count * self.corners + 1, np.int32)
        ends = np.empty(self.corners + 1, np.int64)
        after, unsettled = np.empty((2, self.count + 1), np.int32)
        headed = np.empty(self.count + 1, np.uint8)
        filled = compiled(lattice.chains)(
            self.corners, self.codes, self.count, self.table, len(self.table) - 1, self.strides, after, unsettled,
            headed, links, ends,
        )  # fmt: skip
        return links[:filled], ends

    @property
    def arguments(self) -> tuple[Any, ...]:
        """What `lattice.visit` takes of each lattice."""
        return (
            self.tables, self.tables.shape[1], self.lows, self.strides, self.offsets, self.table, len(self.table) - 1,
            self.codes, min(len(self.codes), len(self.table) // 2),
        )  # fmt: skip


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
        state = np.zeros(7, np.int64)
        scratch = _scratch()
        visit = compiled(lattice.visit)
        while state[2] < height * width:
            self.colour.reserve(TILE * TILE * 6)
            self.space.reserve(TILE * TILE * 3)
            visit(
                state, image, height, width, *self.colour.arguments, *self.space.arguments, *scratch, self.order,
                self.starts, self.group_vertices, self.group_weights, self.point_vertices, self.point_weights,
            )  # fmt: skip
            self.colour.count, self.space.count = int(state[3]), int(state[4])
        return int(state[1])

    @property
    def touched(self) -> tuple[Any, ...]:
        """Which vertices every position touches, with what weights, as the kernels of `sweep` take them."""
        groups = len(self.starts) - 1
        return groups, self.starts, self.group_vertices, self.group_weights, self.point_vertices, self.point_weights


def _scratch() -> tuple[NDArray[Any], ...]:
    """What the stages of one tile hand to each other, in the order of `lattice.visit`."""
    room = TILE * TILE
    return (
        np.empty(48 * room, np.float32),  # work
        np.empty(room, np.int64),  # codes
        np.empty(room, np.int32),  # orders
        np.empty(room, np.int32),  # simplex_of
        np.empty(room, np.int32),  # positions
        np.empty(room + 1, np.int32),  # begins
        np.empty(room * 6, np.int32),  # pairs
        np.empty(room * 6 + 1, np.int32),  # fresh: a candidate is written before it is counted
        np.empty(room * 64, np.int32),  # local
        np.empty(2 * room, np.int32),  # cell_table
        np.empty(2 * room, np.int32),  # simplex_table
        np.empty(room, np.int64),  # cell_codes
        np.empty(room, np.int32),  # cell_of
        np.empty(room, np.int32),  # simplex_orders
    )
