"""The settings of the dense CRF and their defaults."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from pydantic import BeforeValidator, Field

from ppl.config import Config
from ppl.errors import PPLValueError

__all__ = ["Compat", "CompatField", "CrfConfig", "Deviations", "DeviationsField", "Normalization", "per_axis"]

Deviations: TypeAlias = "float | Sequence[float]"
"""A standard deviation for all axes, or one for each axis."""

Compat: TypeAlias = "float | Sequence[float] | Sequence[Sequence[float]] | NDArray[Any]"
"""A weight (Potts model), a vector of L numbers or a symmetric (L, L) matrix."""

Normalization: TypeAlias = Literal["symmetric", "before", "after", "none"]
"""How a kernel is normalised: see `CrfConfig`."""

_LARGEST = 1e6


def _plain(value: Any) -> Any:
    """Return numbers and arrays of numpy and torch as Python numbers and tuples."""
    value = value.tolist() if hasattr(value, "tolist") else value
    return tuple(_plain(item) for item in value) if isinstance(value, list | tuple) else value


def _check_number(value: Any, least: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"must be a number, got {value!r}")
    if not math.isfinite(value) or not least <= value <= _LARGEST:
        raise ValueError(
            f"must be finite and {'' if least < 0 else 'not negative and '}at most {_LARGEST:g}, got {value}"
        )
    return float(value)


def _check_deviations(value: Any) -> float | tuple[float, ...]:
    def check(number: Any) -> float:
        if _check_number(number, 0) == 0:
            raise ValueError("must be positive, got 0")
        return float(number)

    value = _plain(value)
    if not isinstance(value, tuple):
        return check(value)
    if not value:
        raise ValueError("must be a number or one number for each axis, got none")
    return tuple(check(number) for number in value)


def _check_compat(value: Any) -> float | tuple[Any, ...]:
    value = _plain(value)
    if not isinstance(value, tuple):
        return _check_number(value, 0)
    if not any(isinstance(row, tuple) for row in value):
        return tuple(_check_number(number, -_LARGEST) for number in value)
    if any(not isinstance(row, tuple) or len(row) != len(value) for row in value):
        raise ValueError("must be a number, a vector (L,) or a square matrix (L, L)")
    matrix = tuple(tuple(_check_number(number, -_LARGEST) for number in row) for row in value)
    if not np.allclose(matrix, np.transpose(matrix)):
        raise ValueError("must be symmetric; pass (matrix + matrix.T) / 2")
    return matrix


DeviationsField = Annotated[float | tuple[float, ...], BeforeValidator(_check_deviations)]
CompatField = Annotated[float | tuple[float, ...] | tuple[tuple[float, ...], ...], BeforeValidator(_check_compat)]


class CrfConfig(Config):
    """Settings of the dense CRF. The defaults are those of PSA (Ahn and Kwak, CVPR 2018).

    Compatibilities mean what they mean in pydensecrf. A number w is the Potts model: the score of a label at a pixel
    grows by w times the label's filtered probability. A matrix gives the penalty of every pair of labels. A vector is
    the diagonal of such a matrix: a negative number makes a label attract itself.

    A kernel K is normalised by its row sums n = K 1: "symmetric" is n^-1/2 K n^-1/2 (Krähenbühl and Koltun, ICML
    2013), "before" is K n^-1, "after" is n^-1 K (their paper at NeurIPS 2011), "none" leaves K as it is.

    Attributes:
        iterations: number of mean-field iterations; 0 leaves the normalised input.
        gaussian_sxy: standard deviation of the smoothness kernel in pixels, or one for each of x and y.
        gaussian_compat: compatibility of the smoothness kernel.
        gaussian_normalization: normalisation of the smoothness kernel.
        bilateral_sxy: spatial standard deviation of the appearance kernel in pixels, or one for each of x and y.
        bilateral_srgb: its standard deviation in colour, on the scale 0..255, or one for each channel.
        bilateral_compat: compatibility of the appearance kernel.
        bilateral_normalization: normalisation of the appearance kernel.
        energies_from: how probabilities become energies: "probs" takes minus their logarithm, "labels" takes the most
            likely label of each pixel and trusts it with probability `gt_prob`.
        gt_prob: probability that a given label is right.
        source: the methods that publish these settings.

    Example:
        >>> CrfConfig(bilateral_srgb=5, bilateral_sxy=(50, 40)).bilateral_sxy
        (50.0, 40.0)
        >>> CrfConfig.checked(gaussian_sxy=0)
        Traceback (most recent call last):
        ppl.errors.PPLValueError: gaussian_sxy: must be positive, got 0
    """

    iterations: Annotated[int, BeforeValidator(_plain), Field(strict=True, ge=0)] = 10
    gaussian_sxy: DeviationsField = 3.0
    gaussian_compat: CompatField = 3.0
    gaussian_normalization: Normalization = "symmetric"
    bilateral_sxy: DeviationsField = 80.0
    bilateral_srgb: DeviationsField = 13.0
    bilateral_compat: CompatField = 10.0
    bilateral_normalization: Normalization = "symmetric"
    energies_from: Literal["probs", "labels"] = "probs"
    gt_prob: Annotated[float, BeforeValidator(_plain), Field(strict=True, gt=0, lt=1)] = 0.7
    source: str = ""

    @property
    def is_potts(self) -> bool:
        """Whether both compatibilities are single weights."""
        return isinstance(self.gaussian_compat, float) and isinstance(self.bilateral_compat, float)

    def scaled(self, factor: float) -> CrfConfig:
        """Return the settings with both spatial deviations divided, for images that are smaller by the factor.

        Raises:
            PPLValueError: if the factor is not positive.

        Example:
            >>> CrfConfig().scaled(2).bilateral_sxy
            40.0
        """
        if not factor > 0:
            raise PPLValueError(f"the scale factor must be positive, got {factor!r}")
        smaller = {
            name: tuple(number / factor for number in value) if isinstance(value, tuple) else value / factor
            for name, value in (("gaussian_sxy", self.gaussian_sxy), ("bilateral_sxy", self.bilateral_sxy))
        }
        return self.checked({**dict(self), **smaller})


def per_axis(name: str, value: float | tuple[float, ...], count: int) -> tuple[float, ...]:
    """Return a deviation for each of `count` axes.

    Raises:
        PPLValueError: if `value` holds another number of deviations.

    Example:
        >>> per_axis("gaussian_sxy", 3.0, 2)
        (3.0, 3.0)
    """
    values = value if isinstance(value, tuple) else (value,) * count
    if len(values) != count:
        raise PPLValueError(f"{name} must be a number or {count} numbers, one for each axis, got {len(values)}")
    return values
