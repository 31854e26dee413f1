"""Dense CRF: mean field over all pairs of pixels, on three interchangeable engines."""

from __future__ import annotations

from ppl.refine.crf.backends import crf_backend
from ppl.refine.crf.config import CrfConfig
from ppl.refine.crf.inference import crf
from ppl.refine.crf.many import crf_many
from ppl.refine.crf.presets import PRESETS

__all__ = ["PRESETS", "CrfConfig", "crf", "crf_backend", "crf_many"]
