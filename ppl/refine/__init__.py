"""Refinement: maps in, sharper maps out."""

from __future__ import annotations

from ppl.refine.crf import PRESETS, CRFPreset, crf, crf_backend, crf_from_labels, crf_many, crf_preset
from ppl.refine.folder import refine_folder
from ppl.refine.guided import guided_filter
from ppl.refine.jobs import RefineJob, jobs_from_folders, load_cams
from ppl.refine.parallel import BadFile, FolderSummary
from ppl.refine.pipeline import Step, apply_steps, iterate_steps, parse_steps
from ppl.refine.pixel_adaptive import pixel_adaptive
from ppl.refine.probabilities import cams_to_probs
from ppl.refine.random_walk import random_walk
from ppl.refine.scoring import StepScore, score_steps
from ppl.refine.steps import REFINERS, Refiner
from ppl.refine.superpixels import superpixel_segments, superpixels

__all__ = [
    "PRESETS",
    "REFINERS",
    "BadFile",
    "CRFPreset",
    "FolderSummary",
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
