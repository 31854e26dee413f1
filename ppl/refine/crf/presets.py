"""The dense-CRF settings that the field's papers and repositories use, by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from ppl.errors import PPLValueError

__all__ = ["PRESETS", "CRFPreset", "preset"]


@dataclass(frozen=True)
class CRFPreset:
    """One published setting of the dense CRF.

    Attributes:
        gaussian_sxy: standard deviation of the smoothness kernel, in pixels.
        gaussian_compat: its weight.
        bilateral_sxy: spatial standard deviation of the appearance kernel, in pixels.
        bilateral_srgb: its standard deviation in colour, on the scale 0..255.
        bilateral_compat: its weight.
        iterations: mean-field steps.
        unary: what the energies are made of: `"probs"` (minus the logarithm of the maps) or `"labels"`
            (a hard label map that is right with probability `gt_prob`).
        gt_prob: that probability; used with `unary="labels"` alone.
        used_by: the methods that publish it.
    """

    gaussian_sxy: float
    gaussian_compat: float
    bilateral_sxy: float
    bilateral_srgb: float
    bilateral_compat: float
    iterations: int = 10
    unary: Literal["probs", "labels"] = "probs"
    gt_prob: float = 0.7
    used_by: str = ""

    def arguments(self, scale_factor: float = 1.0) -> dict[str, float | int]:
        """The keyword arguments for `crf` and `crf_from_labels`.

        Args:
            scale_factor: divides both spatial deviations: the maps are smaller than the image by it.

        Raises:
            PPLValueError: if `scale_factor` is not positive.
        """
        if not scale_factor > 0:
            raise PPLValueError(f"scale_factor must be positive, got {scale_factor!r}")
        return {
            "iterations": self.iterations,
            "gaussian_sxy": self.gaussian_sxy / scale_factor,
            "gaussian_compat": self.gaussian_compat,
            "bilateral_sxy": self.bilateral_sxy / scale_factor,
            "bilateral_srgb": self.bilateral_srgb,
            "bilateral_compat": self.bilateral_compat,
        }


PRESETS: Mapping[str, CRFPreset] = MappingProxyType(
    {
        "psa": CRFPreset(3, 3, 80, 13, 10, used_by="PSA, SEAM, EPS, OC-CSE: crf_inference"),
        "irn": CRFPreset(3, 3, 50, 5, 10, unary="labels", used_by="IRN, ReCAM, SIPE, AMN, Puzzle-CAM: label maps"),
        "puzzle": CRFPreset(3, 3, 50, 5, 10, iterations=1, unary="labels", used_by="Puzzle-CAM: its final masks"),
        "deeplab": CRFPreset(1, 3, 67, 3, 4, used_by="DeepLab-PyTorch, L2G, CLIP-ES, ExCEL"),
        "seam-seg": CRFPreset(3, 3, 32, 13, 10, iterations=1, used_by="SEAM's DeepLabV1 stage"),
        # The source names no iteration count: 10 is ours.
        "mctformer-seg": CRFPreset(4, 3, 83, 5, 3, used_by="MCTformer's segmentation stage"),
        "toco-seg": CRFPreset(1, 1, 121, 5, 4, used_by="ToCo, DuPL, SeCo: segmentation"),
        "toco-cam": CRFPreset(3, 3, 36, 3, 4, used_by="ToCo: CAM labels"),
        "weclip": CRFPreset(3, 3, 64, 5, 4, used_by="WeCLIP+"),
    }
)
"""Name -> `CRFPreset`. The spelling of a name is part of the recipe format."""


def preset(name: str) -> CRFPreset:
    """A published setting by its name.

    Args:
        name: a key of `PRESETS`.

    Raises:
        PPLValueError: for another name; the message lists those that exist.

    Example:
        >>> preset("irn").bilateral_srgb
        5
        >>> preset("psa").arguments(scale_factor=2)["bilateral_sxy"]
        40.0
    """
    try:
        return PRESETS[name]
    except (KeyError, TypeError):
        raise PPLValueError(f"no CRF preset named {name!r}; the presets are: {', '.join(sorted(PRESETS))}") from None
