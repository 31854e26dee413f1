"""Dense CRF: mean field over all pairs of pixels, on three interchangeable engines."""

from __future__ import annotations

from ppl.refine.crf.backends import crf_backend
from ppl.refine.crf.inference import crf, crf_from_labels, crf_preset
from ppl.refine.crf.many import crf_many
from ppl.refine.crf.presets import PRESETS, CRFPreset, preset

__all__ = ["PRESETS", "CRFPreset", "crf", "crf_backend", "crf_from_labels", "crf_many", "crf_preset", "preset"]
