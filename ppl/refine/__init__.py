"""Refinement of class maps: the image and coarse maps in, sharper maps out.

The CRF loads in a tenth of a second; the parts that need PyTorch load on first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from ppl.refine.crf import PRESETS, CrfConfig, crf, crf_backend, crf_many

if TYPE_CHECKING:
    from ppl.refine.adaptive import pixel_adaptive
    from ppl.refine.apply import apply_refiners, iterate_refiners
    from ppl.refine.folder import refine_folder
    from ppl.refine.guided import guided_filter
    from ppl.refine.jobs import RefineJob, jobs_from_folders
    from ppl.refine.probabilities import cams_to_probs
    from ppl.refine.refiners import REFINERS, register_refiner
    from ppl.refine.scoring import RefinerScore, score_refiners
    from ppl.refine.segment_anything import sam, sam_segments
    from ppl.refine.segments import superpixel_segments, superpixels
    from ppl.refine.specs import RefinerSpec, parse_refiners
    from ppl.refine.walk import random_walk
    from ppl.refine.walk_features import feature_walk

_MODULES = {
    "REFINERS": "refiners",
    "RefineJob": "jobs",
    "RefinerScore": "scoring",
    "RefinerSpec": "specs",
    "apply_refiners": "apply",
    "cams_to_probs": "probabilities",
    "feature_walk": "walk_features",
    "guided_filter": "guided",
    "iterate_refiners": "apply",
    "jobs_from_folders": "jobs",
    "parse_refiners": "specs",
    "pixel_adaptive": "adaptive",
    "random_walk": "walk",
    "refine_folder": "folder",
    "register_refiner": "refiners",
    "sam": "segment_anything",
    "sam_segments": "segment_anything",
    "score_refiners": "scoring",
    "superpixel_segments": "segments",
    "superpixels": "segments",
}

__all__ = [
    "PRESETS",
    "REFINERS",
    "CrfConfig",
    "RefineJob",
    "RefinerScore",
    "RefinerSpec",
    "apply_refiners",
    "cams_to_probs",
    "crf",
    "crf_backend",
    "crf_many",
    "feature_walk",
    "guided_filter",
    "iterate_refiners",
    "jobs_from_folders",
    "parse_refiners",
    "pixel_adaptive",
    "random_walk",
    "refine_folder",
    "register_refiner",
    "sam",
    "sam_segments",
    "score_refiners",
    "superpixel_segments",
    "superpixels",
]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(importlib.import_module(f"ppl.refine.{_MODULES[name]}"), name)
    raise AttributeError(f"module 'ppl.refine' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
