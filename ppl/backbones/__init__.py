"""Backbones: find the stages of any timm or custom model, cut it after a stage, resume it from there."""

from __future__ import annotations

from ppl.backbones.check import BackboneReport, check_backbone
from ppl.backbones.cut import CutBackbone, refuse_data_parallel
from ppl.backbones.data_config import data_config
from ppl.backbones.dry_run import resolve_stages
from ppl.backbones.errors import UnsupportedBackboneError
from ppl.backbones.freeze import freeze_stages
from ppl.backbones.identities import CutReport
from ppl.backbones.stages import Stage, default_cuts

__all__ = [
    "BackboneReport",
    "CutBackbone",
    "CutReport",
    "Stage",
    "UnsupportedBackboneError",
    "check_backbone",
    "data_config",
    "default_cuts",
    "freeze_stages",
    "refuse_data_parallel",
    "resolve_stages",
]
