"""Refinement: maps in, sharper maps out.

The CRF loads in a tenth of a second; what needs PyTorch loads on first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from ppl.refine.crf import PRESETS, CRFPreset, crf, crf_backend, crf_from_labels, crf_many, crf_preset

if TYPE_CHECKING:
    from ppl.refine.adaptive import pixel_adaptive
    from ppl.refine.folder import refine_folder
    from ppl.refine.guided import guided_filter
    from ppl.refine.jobs import RefineJob, jobs_from_folders, load_cams
    from ppl.refine.pipeline import Step, apply_steps, iterate_steps, parse_steps
    from ppl.refine.probabilities import cams_to_probs
    from ppl.refine.scoring import StepScore, score_steps
    from ppl.refine.segments import superpixel_segments, superpixels
    from ppl.refine.steps import REFINERS, Refiner
    from ppl.refine.walk import random_walk

_NAMES = {
    "REFINERS": "steps",
    "RefineJob": "jobs",
    "Refiner": "steps",
    "Step": "pipeline",
    "StepScore": "scoring",
    "apply_steps": "pipeline",
    "cams_to_probs": "probabilities",
    "guided_filter": "guided",
    "iterate_steps": "pipeline",
    "jobs_from_folders": "jobs",
    "load_cams": "jobs",
    "parse_steps": "pipeline",
    "pixel_adaptive": "adaptive",
    "random_walk": "walk",
    "refine_folder": "folder",
    "score_steps": "scoring",
    "superpixel_segments": "segments",
    "superpixels": "segments",
}

__all__ = [
    "PRESETS",
    "REFINERS",
    "CRFPreset",
    "RefineJob",
    "Refiner",
    "Step",
    "StepScore",
    "apply_steps",
    "cams_to_probs",
    "crf",
    "crf_backend",
    "crf_from_labels",
    "crf_many",
    "crf_preset",
    "guided_filter",
    "iterate_steps",
    "jobs_from_folders",
    "load_cams",
    "parse_steps",
    "pixel_adaptive",
    "random_walk",
    "refine_folder",
    "score_steps",
    "superpixel_segments",
    "superpixels",
]


def __getattr__(name: str) -> Any:
    if name in _NAMES:
        return getattr(importlib.import_module(f"ppl.refine.{_NAMES[name]}"), name)
    raise AttributeError(f"module 'ppl.refine' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
