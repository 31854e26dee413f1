"""One inference from start to end."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ppl.errors import PPLValueError
from ppl.refine.crf.native import sweep as steps
from ppl.refine.crf.native.build import Lattices, Vertices
from ppl.refine.crf.native.lattice import LONGEST
from ppl.refine.crf.validation import CRFSettings
from ppl.refine.kernel import compiled

__all__ = ["mean_field"]

_SAFE_EXPONENT = 80.0


def mean_field(
    image: NDArray[np.uint8],
    unary: NDArray[np.float32],
    settings: CRFSettings,
    copies: int = 1,
) -> NDArray[np.float32]:
    """Mean-field inference on the CPU. The arguments are those that `ppl.refine.crf.inference` has checked.

    Runs in the calling thread and releases the GIL, so that several images can be under way in as many threads.

    Args:
        image: (H, W, 3) contiguous.
        unary: (L, H, W) energies, contiguous; L is at least 2.
        settings: checked numbers.
        copies: how many labels the last energy stands for.

    Returns:
        (L, H, W) probabilities; the last is that of a single copy.
    """
    labels = len(unary)
    try:
        lattices = Lattices(image, settings.gaussian_sxy, settings.bilateral_sxy, settings.bilateral_srgb)
    except OverflowError as error:
        raise PPLValueError(f"{error}; enlarge bilateral_srgb={settings.bilateral_srgb:g} or bilateral_sxy") from error
    touched = lattices.touched
    near, flat = _Lattice(lattices.colour), _Lattice(lattices.space)
    constant = np.empty(image.shape[0] * image.shape[1], np.float32)
    gain = _normalise(near, flat, touched, settings, constant)

    stride = _stride(labels - 1)
    width, narrow = _registers(stride)
    rows = np.empty(constant.size * stride, np.float32)
    largest = compiled(steps.pack)(labels, constant.size, unary, lattices.order, stride, rows)
    far = largest + gain > _SAFE_EXPONENT
    near.make_room(stride)
    flat.make_room(stride)
    scratch: tuple[Any, ...] = ()
    if stride == width:
        sweep = compiled(steps.sweep, width=width)
    else:
        sweep = compiled(steps.sweep_wide, width=width, narrow=narrow)
        scratch = stride, *(np.empty(LONGEST * length, np.float32) for length in (stride, narrow, 1, 1))
    for step in range(settings.iterations + 1):
        first, last = step == 0, step == settings.iterations
        fields = (near.values, flat.values, near.sums, flat.sums)
        sweep(rows, constant, 1 / copies, far, first, last, *touched, *fields, *scratch)
        if not last:
            near.blur()
            flat.blur()
    result = np.empty((labels, constant.size), np.float32)
    compiled(steps.unpack)(labels, constant.size, rows, lattices.order, stride, copies, result)
    return result.reshape(unary.shape)


class _Lattice:
    """The values of one lattice: what the next sweep slices, and what it splats.

    At first there is one value to a vertex; after `make_room` there are rows.
    """

    def __init__(self, vertices: Vertices) -> None:
        self.count = vertices.count
        self.links, self.ends = vertices.chains()
        self.make_room(1)

    def make_room(self, stride: int) -> None:
        """Rows of zeros; the two beyond the vertices belong to `steps.blur`."""
        self.stride = stride
        self.values = np.zeros((self.count + 2) * stride, np.float32)
        self.sums = np.zeros((self.count + 2) * stride, np.float32)

    def blur(self) -> None:
        """Blur what was splatted, hand it to the next slice, and start the next splat from zero."""
        chains = self.count, self.links, self.ends, len(self.ends) - 1
        width, narrow = _registers(self.stride)
        if self.stride == width:
            compiled(steps.blur, width=width)(self.sums, *chains)
        else:
            earlier = np.empty(self.stride, np.float32)
            compiled(steps.blur_wide, width=width, narrow=narrow)(self.sums, *chains, self.stride, earlier)
        self.values, self.sums = self.sums, self.values
        self.sums.fill(0)


def _normalise(
    near: _Lattice, flat: _Lattice, touched: tuple[Any, ...], settings: CRFSettings, constant: NDArray[np.float32]
) -> float:
    """Fold normalisation and compatibility into the weights; what all labels together gain goes to `constant`.

    Returns:
        The largest gain.
    """
    # What a blur adds to the mass, in each dimension.
    near_alpha, flat_alpha = 1 / (1 + 2.0**-5), 1 / (1 + 2.0**-2)
    largest = 0.0
    for normalise in (True, False):
        compiled(steps.splat_ones)(*touched, near.sums, flat.sums)
        near.blur()
        flat.blur()
        largest = compiled(steps.slice_ones)(
            *touched, near.values, flat.values, normalise, near_alpha, flat_alpha, settings.bilateral_compat,
            settings.gaussian_compat, constant,
        )  # fmt: skip
    return largest


def _stride(labels: int) -> int:
    """Length of a row that holds so many labels.

    Few lengths, because each is compiled on its own: powers of two, then multiples of four.
    """
    return 1 << (labels - 1).bit_length() if labels <= 8 else -(-labels // 4) * 4


def _registers(stride: int) -> tuple[int, int]:
    """Widths that a row is cut into: the row itself up to what the registers of a processor hold, then 16 and 4."""
    return (stride, stride) if stride <= 32 else (16, 4)
