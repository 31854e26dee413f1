"""Backbones: the stages of any timm or custom model, cutting it after one of them, resuming it from there."""

from __future__ import annotations

from ppl.backbones.check import BackboneReport, check_backbone
from ppl.backbones.cut import CutBackbone, refuse_data_parallel
from ppl.backbones.data_config import data_config
from ppl.backbones.errors import UnsupportedBackboneError
from ppl.backbones.freeze import freeze_stages
from ppl.backbones.identities import CutReport
from ppl.backbones.stages import Stage, default_cuts
from ppl.backbones.table import support_table
from ppl.backbones.trace import resolve_stages
from ppl.backbones.variants import variants

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
    "support_table",
    "variants",
]
