"""Draw the two figures of docs/patch_learning.md: progressive and explicit patch learning.

    python docs/figures/draw.py            writes progressive.svg and explicit.svg beside this file
    python docs/figures/draw.py --png      writes PNGs as well, to look at

They show what figures 2 and 5 of Li et al., "Progressive Patch Learning" (IEEE TMM 2022) show, in a drawing of our own.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.patches import Circle, Ellipse, FancyArrowPatch, FancyBboxPatch, Polygon, Rectangle

HERE = Path(__file__).parent
INK, FAINT, PAPER = "#1f2933", "#9aa5b1", "#ffffff"
BLOCKS = ["#cfe3f7", "#8fbfe8", "#4c93cf", "#1f5f9e"]  # block 1 (shallow) .. block 4 (deep)
PATCH, MERGED, WHOLE, STOP = "#f6b53c", "#e0793a", "#5b8c5a", "#c0392b"
TINTS = ["#fbf6ea", "#f1f5fb", "#eef6ee"]
ROW = 3.0


@dataclass
class Pen:
    """Draws on axes in data units, x to the right, y up."""

    axes: Axes

    def box(self, x: float, y: float, text: str, colour: str, w: float = 0.62, h: float = 0.5, ink: str = INK) -> None:
        """A rounded box with a word in it."""
        style = "round,pad=0,rounding_size=0.07"
        patch = FancyBboxPatch((x - w / 2, y - h / 2), w, h, boxstyle=style, fc=colour, ec=INK, lw=0.8)
        self.axes.add_patch(patch)
        self.text(x, y, text, colour=ink)

    def block(self, x: float, y: float, number: int) -> None:
        """A block of the backbone."""
        self.box(x, y, str(number), BLOCKS[number - 1], ink=PAPER if number > 2 else INK)

    def text(self, x: float, y: float, text: str, size: float = 10, colour: str = INK, **style: object) -> None:
        """Words, centred on the point unless said otherwise."""
        options: dict[str, object] = {"ha": "center", "va": "center", **style}
        self.axes.text(x, y, text, fontsize=size, color=colour, **options)

    def arrow(self, *points: tuple[float, float], colour: str = INK, dashed: bool = False) -> None:
        """Straight lines through the points, with a head at the last."""
        style = (0, (3, 2)) if dashed else "-"
        for start, end in pairwise(points[:-1]):
            self.axes.plot(*zip(start, end, strict=True), color=colour, lw=1.1, ls=style, solid_capstyle="round")
        head = FancyArrowPatch(
            points[-2],
            points[-1],
            arrowstyle="-|>",
            mutation_scale=9,
            color=colour,
            lw=1.1,
            ls=style,
            shrinkA=0,
            shrinkB=0,
        )
        self.axes.add_patch(head)

    def disc(self, x: float, y: float, letter: str) -> None:
        """An operation."""
        self.axes.add_patch(Circle((x, y), 0.21, fc=PAPER, ec=INK, lw=1.1, zorder=3))
        self.text(x, y, letter, weight="bold", zorder=4)

    def cube(self, x: float, y: float, colour: str, *, cut: bool = False, side: float = 0.72) -> None:
        """A feature map seen from the front left; with a dashed 2x2 grid on its face if it is about to be cut."""
        depth = side * 0.3
        left, bottom = x - side / 2 - depth / 2, y - side / 2 - depth / 2
        right, top = left + side, bottom + side
        edge = {"ec": INK, "lw": 0.8, "joinstyle": "round"}
        lid = [(left, top), (left + depth, top + depth), (right + depth, top + depth), (right, top)]
        flank = [(right, bottom), (right + depth, bottom + depth), (right + depth, top + depth), (right, top)]
        self.axes.add_patch(Rectangle((left, bottom), side, side, fc=colour, **edge))
        self.axes.add_patch(Polygon(lid, fc=lighter(colour, 0.45), **edge))
        self.axes.add_patch(Polygon(flank, fc=lighter(colour, 0.2), **edge))
        if cut:
            for line in (
                [(left, y - depth / 2), (right, y - depth / 2), (right + depth, y + depth / 2)],
                [(x - depth / 2, bottom), (x - depth / 2, top), (x + depth / 2, top + depth)],
            ):
                self.axes.plot(*zip(*line, strict=True), color=PAPER, lw=1.4, ls=(0, (2.5, 1.5)), zorder=3)

    def patches(self, x: float, y: float, colour: str) -> None:
        """The four patches of a map, one above the other."""
        for step in (-0.63, -0.21, 0.21, 0.63):
            self.cube(x, y + step, colour, side=0.27)

    def stop(self, x: float, y: float) -> None:
        """The cross that stands for a gradient that goes no further."""
        for sign in (1, -1):
            self.axes.plot([x - 0.1, x + 0.1], [y - 0.1 * sign, y + 0.1 * sign], color=STOP, lw=2.4, zorder=5)


def lighter(colour: str, share: float) -> tuple[float, ...]:
    """The colour, mixed with white."""
    return tuple(value + (1 - value) * share for value in matplotlib.colors.to_rgb(colour))


def canvas(width: float, height: float) -> tuple[plt.Figure, Pen]:
    """A white page, one data unit to 0.68 inches."""
    figure = plt.figure(figsize=(width * 0.68, height * 0.68))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, width), ylim=(0, height), aspect="equal")
    axes.axis("off")
    axes.add_patch(Rectangle((0, 0), width, height, fc=PAPER, ec="none"))  # readable on a dark page too
    return figure, Pen(axes)


def prefix(pen: Pen, y: float, cut: int) -> float:
    """Blocks 1..cut; returns where the last one ends."""
    for number in range(1, cut + 1):
        pen.block(2.0 + 0.72 * (number - 1), y, number)
        if number < cut:
            pen.arrow((2.31 + 0.72 * (number - 1), y), (2.41 + 0.72 * (number - 1), y))
    return 2.31 + 0.72 * (cut - 1)


def image(pen: Pen, x: float, y: float, side: float = 1.0) -> None:
    """A small landscape with an animal in it."""
    left, bottom = x - side / 2, y - side / 2
    axes = pen.axes
    axes.add_patch(Rectangle((left, bottom), side, side, fc="#bfe0f2", ec=INK, lw=0.8))
    axes.add_patch(Rectangle((left, bottom), side, side * 0.36, fc="#a9c98b", ec=INK, lw=0.5))
    body = "#8d6748"
    for offset in (-0.2, -0.1, 0.12, 0.22):
        axes.add_patch(Rectangle((x + offset * side, y - 0.34 * side), 0.05 * side, 0.2 * side, fc=body))
    axes.add_patch(
        FancyBboxPatch(
            (x - 0.18 * side, y - 0.14 * side), 0.4 * side, 0.14 * side, boxstyle="round,pad=0.05", fc=body, ec="none"
        )
    )
    axes.add_patch(Circle((x - 0.27 * side, y + 0.15 * side), 0.13 * side, fc=body))
    axes.add_patch(
        Polygon(
            [
                (x - 0.38 * side, y + 0.21 * side),
                (x - 0.36 * side, y + 0.35 * side),
                (x - 0.28 * side, y + 0.26 * side),
            ],
            fc=body,
        )
    )
    axes.add_patch(
        Polygon(
            [
                (x - 0.26 * side, y + 0.26 * side),
                (x - 0.18 * side, y + 0.35 * side),
                (x - 0.16 * side, y + 0.21 * side),
            ],
            fc=body,
        )
    )


def tail(pen: Pen, corners: list[tuple[float, float]], cut: int, end: float, colour: str = INK) -> None:
    """A line through the corners, then blocks cut+1..4, the last one around `end`."""
    count = 4 - cut
    y = corners[-1][1]
    start = end - 0.72 * (count - 1) - 0.31
    pen.arrow(*corners, (start, y), colour=colour)
    for index in range(count):
        centre = start + 0.31 + 0.72 * index
        pen.block(centre, y, cut + 1 + index)
        if index < count - 1:
            pen.arrow((centre + 0.31, y), (centre + 0.41, y))


def heat(pen: Pen, x: float, y: float, side: float) -> None:
    """A class activation map that covers the whole animal."""
    image(pen, x, y, side)
    for share in (1.0, 0.85, 0.7, 0.55, 0.4, 0.25):
        size = (0.92 * side * share, 0.62 * side * share)
        pen.axes.add_patch(Ellipse((x - 0.03 * side, y - 0.03 * side), *size, fc=STOP, ec="none", alpha=0.2, zorder=4))


def classifier(pen: Pen, x: float, y: float, *, cam: bool, below: float = 0.85) -> None:
    """Concatenation, classifier and loss, and the CAM below where it is read."""
    pen.disc(x, y, "C")
    pen.arrow((x + 0.21, y), (x + 0.5, y))
    pen.box(x + 1.1, y, "classifier", "#f4f5f7", w=1.2)
    pen.arrow((x + 1.7, y), (x + 2.0, y))
    pen.box(x + 2.4, y, "loss", "#f4f5f7", w=0.8)
    if cam:
        pen.arrow((x + 1.1, y - 0.25), (x + 1.1, y - below + 0.3), colour=STOP)
        heat(pen, x + 1.1, y - below - 0.2, 0.95)
        pen.text(x + 1.75, y - below - 0.2, "CAM", colour=STOP, weight="bold", ha="left")


def patch_branch(pen: Pen, start: float, y: float, cut: int, colour: str, end: float, *, detached: bool) -> None:
    """From the end of block `cut` to the merged map."""
    pen.arrow((start, y), (start + 0.62, y))
    if detached:
        pen.stop(start + 0.28, y)
    cube = start + 1.08
    pen.cube(cube, y, colour, cut=True)
    pen.disc(cube + 0.86, y, "P")
    pen.arrow((cube + 0.47, y), (cube + 0.65, y))
    pen.arrow((cube + 1.07, y), (cube + 1.3, y))
    pen.patches(cube + 1.55, y, colour)
    for row in (-0.63, 0.63):
        tail(pen, [(cube + 1.78, y + row)], cut, end)
    pen.text(end - 0.36 * (3 - cut), y, "⋮", size=13)
    pen.axes.plot(
        [end + 0.42, end + 0.5, end + 0.5, end + 0.42], [y + 0.85, y + 0.85, y - 0.85, y - 0.85], color=INK, lw=1
    )
    pen.disc(end + 0.82, y, "M")
    pen.arrow((end + 0.5, y), (end + 0.61, y))
    pen.arrow((end + 1.03, y), (end + 1.25, y))
    pen.cube(end + 1.72, y, MERGED)


def legend(pen: Pen, y: float, *, detach: bool) -> None:
    """What the signs mean."""
    for x, letter, text in ((0.6, "P", "cut into patches"), (3.0, "M", "merge"), (4.4, "C", "concatenate")):
        pen.disc(x, y, letter)
        pen.text(x + 0.32, y, text, size=9, ha="left")
    pen.block(6.7, y, 2)
    pen.text(7.12, y, "a block of the backbone: one set of weights", size=9, ha="left")
    if detach:
        pen.stop(12.2, y)
        pen.text(12.45, y, "gradient stopped", size=9, ha="left")


def progressive() -> plt.Figure:
    """Figure 2: one model, a cut that moves deeper from stage to stage."""
    width, height = 15.4, 3 * ROW + 1.9
    figure, pen = canvas(width, height)
    for stage in (1, 2, 3):
        middle = height - 0.75 - ROW * (stage - 0.5)
        y, below = middle + 0.25, middle - 1.07
        pen.axes.add_patch(
            FancyBboxPatch(
                (0.2, middle - ROW / 2 + 0.1),
                width - 0.4,
                ROW - 0.2,
                boxstyle="round,pad=0,rounding_size=0.15",
                fc=TINTS[stage - 1],
                ec=FAINT,
                lw=0.8,
                ls=(0, (4, 3)),
            )
        )
        pen.text(width - 0.42, middle + ROW / 2 - 0.36, f"stage {stage}", size=11, weight="bold", ha="right")
        image(pen, 0.8, y)
        pen.arrow((1.32, y), (1.68, y))
        start = prefix(pen, y, stage)
        patch_branch(pen, start, y, stage, PATCH, 9.0, detached=False)
        fork = start + 0.34
        pen.text(fork + 0.75, below + 0.16, "un-patched", size=8, colour=WHOLE)
        tail(pen, [(fork, y), (fork, below)], stage, 9.0, WHOLE)
        pen.arrow((9.31, below), (11.75, below), (11.75, y - 0.21), colour=WHOLE)
        pen.arrow((11.24, y), (11.54, y))
        classifier(pen, 11.75, y, cam=stage == 3)
    pen.text(
        width / 2,
        height - 0.4,
        "Progressive: one model, trained stage after stage, the cut one block deeper each time",
        size=12.5,
        weight="bold",
    )
    legend(pen, 0.55, detach=False)
    return figure


def explicit() -> plt.Figure:
    """Figure 5: all cuts at once, every patch branch detached."""
    width, height = 15.4, 3 * 2.1 + 3.3
    figure, pen = canvas(width, height)
    pen.axes.add_patch(
        FancyBboxPatch(
            (0.2, 1.1),
            width - 0.4,
            height - 1.95,
            boxstyle="round,pad=0,rounding_size=0.15",
            fc=TINTS[0],
            ec=FAINT,
            lw=0.8,
            ls=(0, (4, 3)),
        )
    )
    rows = [height - 2.0 - 2.1 * index for index in range(3)]
    below = rows[2] - 1.45
    fuse = (11.9, rows[1])
    image(pen, 0.75, rows[1])
    for cut, y in enumerate(rows, start=1):
        pen.arrow((1.26, rows[1]), (1.46, rows[1]), (1.46, y), (1.68, y))
        start = prefix(pen, y, cut)
        patch_branch(pen, start, y, cut, (PATCH, "#9cc5e8", "#a8d5a2")[cut - 1], 9.0, detached=True)
        corner = [] if y == fuse[1] else [(11.45, y), (11.45, fuse[1])]
        pen.arrow((11.24, y), *corner, (fuse[0] - 0.21, fuse[1]))
    # The un-patched branch leaves where the deepest one does, with its gradient.
    pen.text(2.15, below + 0.16, "un-patched, gradient flows", size=8, colour=WHOLE, ha="left")
    tail(pen, [(2.0, rows[2] - 0.25), (2.0, below)], 1, 9.0, WHOLE)
    pen.arrow((9.31, below), (fuse[0], below), (fuse[0], fuse[1] - 0.21), colour=WHOLE)
    classifier(pen, *fuse, cam=True, below=1.0)
    pen.text(
        width / 2,
        height - 0.4,
        "Explicit: every cut at once, one classifier over all branches",
        size=12.5,
        weight="bold",
    )
    legend(pen, 0.55, detach=True)
    return figure


def main() -> None:
    """Write both."""
    plt.rcParams |= {"svg.hashsalt": "ppl", "svg.fonttype": "path", "font.family": "DejaVu Sans"}
    for name, draw in (("progressive", progressive), ("explicit", explicit)):
        figure = draw()
        figure.savefig(HERE / f"{name}.svg", metadata={"Date": None})
        if "--png" in sys.argv:
            figure.savefig(HERE / f"{name}.png", dpi=110)
        plt.close(figure)


if __name__ == "__main__":
    main()
