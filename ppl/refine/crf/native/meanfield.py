"""Mean field with colours, the Potts model and symmetric normalisation."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ppl.errors import PPLValueError
from ppl.refine.crf.config import CrfConfig, per_axis
from ppl.refine.crf.native import lattice, sweep
from ppl.refine.crf.native.chains import chains
from ppl.refine.crf.native.embedding import axes
from ppl.refine.crf.native.general import mean_field_general
from ppl.refine.crf.native.hashing import Table
from ppl.refine.crf.native.lattice import Touched
from ppl.refine.crf.problem import Problem

__all__ = ["mean_field"]

_SAFE_EXPONENT = 80.0
_F = np.float32


def mean_field(problem: Problem) -> NDArray[np.float32]:
    """Run mean-field inference on the CPU.

    The calling thread does the work and releases the GIL, so that several threads can refine an image each.

    Args:
        problem: a checked problem with at least two labels.

    Returns:
        (L, H, W) probabilities; the last plane belongs to a single copy.
    """
    config, image, unary = problem.config, problem.image, problem.unary
    usual = config.gaussian_normalization == config.bilateral_normalization == "symmetric"
    if not (config.is_potts and usual and problem.features is None):
        return mean_field_general(problem)
    height, width = image.shape[:2]
    labels = len(unary)
    spatial = per_axis("bilateral_sxy", config.bilateral_sxy, 2)
    colours = per_axis("bilateral_srgb", config.bilateral_srgb, 3)
    space = axes([width, height], per_axis("gaussian_sxy", config.gaussian_sxy, 2))
    try:
        colour = axes([width, height, 256, 256, 256], (*spatial, *colours))
    except OverflowError as error:
        raise PPLValueError(f"{error}; enlarge bilateral_srgb={config.bilateral_srgb} or bilateral_sxy") from error
    touched = Touched.empty(height * width)
    tables = Table.empty(6 * (height * width + 1)), Table.empty(3 * (height * width + 1))
    groups, colour_table, space_table = lattice.build(image, colour, space, *tables, touched)
    touched = touched._replace(starts=touched.starts[: groups + 1], group_vertices=touched.group_vertices[:groups])
    near = _Field(len(colour_table.codes), *chains(colour.strides, colour_table))
    flat = _Field(len(space_table.codes), *chains(space.strides, space_table))
    constant = np.empty(height * width, np.float32)
    gain = _normalise(near, flat, touched, config, constant)

    stride = _stride(labels - 1)
    rows = np.empty((constant.size, stride), np.float32)
    sweep.pack(unary.reshape(labels, -1), touched.order, rows)
    far = bool(unary.max() - unary.min() + gain > _SAFE_EXPONENT)
    near.make_room(stride)
    flat.make_room(stride)
    for step in range(config.iterations + 1):
        last = step == config.iterations
        fields = near.values, flat.values, near.sums, flat.sums
        arguments = rows, constant, _F(1 / problem.copies), far, step == 0, last, touched, *fields
        if stride <= 2 * sweep.WIDE:
            sweep.make_sweep(stride)(*arguments)
        else:
            sweep.sweep_wide(*arguments, stride, lattice.LONGEST)
        if not last:
            near.blur()
            flat.blur()
    result: NDArray[np.float32] = np.empty(unary.shape, np.float32)
    sweep.unpack(rows, touched.order, problem.copies, result.reshape(labels, -1))
    return result


class _Field:
    """The values at the vertices of one lattice.

    Attributes:
        values: flat rows that the next sweep slices.
        sums: flat rows that the next sweep splats onto.
        stride: the number of values in a row, at first 1.
    """

    def __init__(self, count: int, links: NDArray[np.int32], ends: NDArray[np.int64]) -> None:
        self.count, self.links, self.ends = count, links, ends
        self.make_room(1)

    def make_room(self, stride: int) -> None:
        """Make rows of zeros for all vertices and two more, which the blur needs."""
        self.stride = stride
        self.values = np.zeros((self.count + 2) * stride, np.float32)
        self.sums = np.zeros((self.count + 2) * stride, np.float32)

    def blur(self) -> None:
        """Blur the splatted sums, make them the values of the next slice, and start new sums from zero."""
        if self.stride <= 2 * sweep.WIDE:
            sweep.make_blur(self.stride)(self.sums, self.count, self.links, self.ends)
        else:
            sweep.blur_wide(self.sums, self.count, self.links, self.ends, self.stride)
        self.values, self.sums = self.sums, self.values
        self.sums.fill(0)


def _normalise(near: _Field, flat: _Field, touched: Touched, config: CrfConfig, constant: NDArray[np.float32]) -> float:
    """Multiply normalisation and compatibility into the weights, and fill `constant` with the gain of all labels.

    Returns:
        The largest gain.
    """
    # A blur multiplies the mass by 1 + 2^-d.
    near_alpha, flat_alpha = _F(1 / (1 + 2.0**-5)), _F(1 / (1 + 2.0**-2))
    near_compat, flat_compat = np.array([config.bilateral_compat, config.gaussian_compat], np.float32)
    largest = 0.0
    for fold in (True, False):
        sweep.splat_ones(touched, near.sums, flat.sums)
        near.blur()
        flat.blur()
        largest = sweep.slice_ones(
            touched, near.values, flat.values, fold, near_alpha, flat_alpha, near_compat, flat_compat, constant
        )
    return largest


def _stride(labels: int) -> int:
    """Return the length of a row that holds so many labels.

    There are few lengths, because each is compiled on its own: powers of two, then multiples of four, then of a
    register.
    """
    if labels <= 8:
        return 1 << (labels - 1).bit_length()
    multiple = 4 if labels <= 2 * sweep.WIDE else sweep.WIDE
    return -(-labels // multiple) * multiple
