"""Families of backbones that are not ordinary chains of stages, and the reasons for refusing some."""

from __future__ import annotations

from ppl.backbones.families.family import Family, Refusal, Tiling
from ppl.backbones.families.registry import check_attributes, family_of, hidden_family

__all__ = ["Family", "Refusal", "Tiling", "check_attributes", "family_of", "hidden_family"]
