"""Refinement: maps in, sharper maps out."""

from __future__ import annotations

from ppl.refine.crf import PRESETS, CRFPreset, crf, crf_backend, crf_from_labels, crf_preset
from ppl.refine.guided import guided_filter
from ppl.refine.pixel_adaptive import pixel_adaptive
from ppl.refine.random_walk import random_walk
from ppl.refine.superpixels import superpixel_segments, superpixels

__all__ = [
    "PRESETS",
    "CRFPreset",
    "crf",
    "crf_backend",
    "crf_from_labels",
    "crf_preset",
    "guided_filter",
    "pixel_adaptive",
    "random_walk",
    "superpixel_segments",
    "superpixels",
]
