"""Refinement: maps in, sharper maps out."""

from __future__ import annotations

from ppl.refine.random_walk import random_walk

__all__ = [
    "random_walk",
]
