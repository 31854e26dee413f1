"""The dense-CRF settings that the field's papers and repositories use, by name."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from ppl.errors import PPLValueError, nearest
from ppl.refine.crf.config import CrfConfig

__all__ = ["PRESETS", "find_preset"]


def _setting(
    gaussian_sxy: float, gaussian_compat: float, bilateral_sxy: float, bilateral_srgb: float, bilateral_compat: float,
    *, source: str, **others: Any,
) -> CrfConfig:  # fmt: skip
    return CrfConfig(
        gaussian_sxy=gaussian_sxy, gaussian_compat=gaussian_compat, bilateral_sxy=bilateral_sxy,
        bilateral_srgb=bilateral_srgb, bilateral_compat=bilateral_compat, source=source, **others,
    )  # fmt: skip


PRESETS: Mapping[str, CrfConfig] = MappingProxyType(
    {
        "psa": _setting(3, 3, 80, 13, 10, source="PSA, SEAM, EPS, OC-CSE: crf_inference"),
        "irn": _setting(
            3, 3, 50, 5, 10, energies_from="labels", source="IRN, ReCAM, SIPE, AMN, Puzzle-CAM: label maps"
        ),
        "puzzle": _setting(3, 3, 50, 5, 10, iterations=1, energies_from="labels", source="Puzzle-CAM: its final masks"),
        "deeplab": _setting(1, 3, 67, 3, 4, source="DeepLab-PyTorch, L2G, CLIP-ES, ExCEL"),
        "seam-seg": _setting(3, 3, 32, 13, 10, iterations=1, source="SEAM's DeepLabV1 stage"),
        # The source names no number of iterations: 10 is ours.
        "mctformer-seg": _setting(4, 3, 83, 5, 3, source="MCTformer's segmentation stage"),
        "toco-seg": _setting(1, 1, 121, 5, 4, source="ToCo, DuPL, SeCo: segmentation"),
        "toco-cam": _setting(3, 3, 36, 3, 4, source="ToCo: CAM labels"),
        "weclip": _setting(3, 3, 64, 5, 4, source="WeCLIP+"),
    }
)
"""Name -> `CrfConfig`. The spelling of a name is part of the recipe format."""


def find_preset(preset: str | CrfConfig) -> CrfConfig:
    """Return published settings by their name; settings stay as they are.

    Raises:
        PPLValueError: for an unknown name; the message proposes one.

    Example:
        >>> find_preset("irn").bilateral_srgb
        5.0
        >>> find_preset("inr")
        Traceback (most recent call last):
        ppl.errors.PPLValueError: no CRF preset named 'inr'; did you mean 'irn'?
    """
    if isinstance(preset, CrfConfig):
        return preset
    if not isinstance(preset, str) or preset not in PRESETS:
        raise PPLValueError(f"no CRF preset named {preset!r}{nearest(str(preset), PRESETS)}")
    return PRESETS[preset]
