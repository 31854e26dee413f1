"""Families of backbones that are not an ordinary chain of stages: what each needs, or why it is refused."""

from __future__ import annotations

from ppl.backbones.families.family import Family, Place, Refusal
from ppl.backbones.families.registry import family_of, hidden_family

__all__ = ["Family", "Place", "Refusal", "family_of", "hidden_family"]
