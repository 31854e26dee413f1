"""One inference from start to end."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ppl.errors import PPLValueError
from ppl.refine.crf.native import sweep as steps
from ppl.refine.crf.native.build import LONGEST, Lattices
from ppl.refine.crf.validation import CRFSettings

__all__ = ["mean_field"]

_SAFE_EXPONENT = 80.0
_MOST, _WIDE, _TAIL = 32, (0,) * 16, (0,) * 4


def mean_field(
    image: NDArray[np.uint8],
    unary: NDArray[np.float32],
    settings: CRFSettings,
    copies: int = 1,
    device: str = "cpu",
) -> NDArray[np.float32]:
    """Mean-field inference on the CPU. The arguments are those that `ppl.refine.crf.inference` has checked.

    Runs in the calling thread and releases the GIL, so that several images can be under way in as many threads.

    Args:
        image: (H, W, 3) contiguous.
        unary: (L, H, W) energies, contiguous; L is at least 2.
        settings: checked numbers.
        copies: how many labels the last energy stands for.
        device: ignored, it computes on the CPU.

    Returns:
        (L, H, W) probabilities; the last is that of a single copy.
    """
    labels = len(unary)
    try:
        lattices = Lattices(image, settings.gaussian_sxy, settings.bilateral_sxy, settings.bilateral_srgb)
    except OverflowError as error:
        raise PPLValueError(f"{error}; enlarge bilateral_srgb={settings.bilateral_srgb:g} or bilateral_sxy") from error
    near = _Lattice(lattices.colour.count, lattices.colour.chains())
    flat = _Lattice(lattices.space.count, lattices.space.chains())
    touched = lattices.touched
    constant = np.empty(image.shape[0] * image.shape[1], np.float32)
    gain = _normalise(near, flat, touched, settings, constant)

    stride, lanes, tail = _layout(labels - 1)
    rows = np.empty(constant.size * stride, np.float32)
    largest = steps.pack(unary.reshape(labels, -1), lattices.order, stride, rows)
    far = bool(largest + gain > _SAFE_EXPONENT)
    near.make_room(stride)
    flat.make_room(stride)
    share = np.float32(1 / copies)
    for step in range(settings.iterations + 1):
        first, last = step == 0, step == settings.iterations
        fields = (near.values, flat.values, near.sums, flat.sums)
        if stride == len(lanes):
            steps.sweep(rows, constant, share, far, first, last, *touched, *fields, lanes)
        else:
            steps.sweep_wide(rows, constant, share, far, first, last, *touched, *fields, stride, LONGEST, lanes, tail)
        if not last:
            near.blur(stride, lanes, tail)
            flat.blur(stride, lanes, tail)
    result = np.empty((labels, constant.size), np.float32)
    steps.unpack(rows, lattices.order, stride, np.float32(copies), result)
    return result.reshape(unary.shape)


class _Lattice:
    """The values of one lattice: what the next sweep slices, and what it splats."""

    def __init__(self, count: int, chains: tuple[NDArray[np.int32], NDArray[np.int64]]) -> None:
        self.count = count
        self.chains = chains
        self.make_room(1)

    def make_room(self, stride: int) -> None:
        """Rows of zeros; the two beyond the vertices belong to `steps.blur`."""
        self.values = np.zeros((self.count + 2) * stride, np.float32)
        self.sums = np.zeros((self.count + 2) * stride, np.float32)

    def blur(self, stride: int, lanes: tuple[int, ...], tail: tuple[int, ...]) -> None:
        """Blur what was splatted, hand it to the next slice, and start the next splat from zero."""
        steps.blur(self.sums, *self.chains, stride, lanes, tail)
        self.values, self.sums = self.sums, self.values
        self.sums.fill(0)


def _normalise(
    near: _Lattice,
    flat: _Lattice,
    touched: tuple[NDArray[np.float32], ...],
    settings: CRFSettings,
    constant: NDArray[np.float32],
) -> float:
    """Fold normalisation and compatibility into the weights; what all labels together gain goes to `constant`.

    Returns:
        The largest gain.
    """
    # What a blur adds to the mass, in each dimension.
    near_alpha, flat_alpha = np.float32(1 / (1 + 2.0**-5)), np.float32(1 / (1 + 2.0**-2))
    largest = 0.0
    for normalise in (True, False):
        steps.splat_ones(*touched, near.sums, flat.sums)
        near.blur(1, (0,), (0,))
        flat.blur(1, (0,), (0,))
        largest = steps.slice_ones(
            *touched, near.values, flat.values, normalise, near_alpha, flat_alpha,
            np.float32(settings.bilateral_compat), np.float32(settings.gaussian_compat), constant,
        )  # fmt: skip
    return largest


def _layout(labels: int) -> tuple[int, tuple[int, ...], tuple[int, ...]]:
    """Length of a row that holds so many labels, and the widths of the registers that it is cut into.

    Few lengths, because each is compiled on its own: powers of two, then multiples of four up to what the registers of
    a processor hold; beyond, sixteens and fours.
    """
    if labels <= _MOST:
        length = 1 << (labels - 1).bit_length() if labels <= 8 else -(-labels // 4) * 4
        return length, (0,) * length, (0,) * length
    return -(-labels // len(_TAIL)) * len(_TAIL), _WIDE, _TAIL
