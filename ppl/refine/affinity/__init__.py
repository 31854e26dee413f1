"""Affinities learned from confident CAM labels: which neighbouring cells belong together."""

from __future__ import annotations

from ppl.refine.affinity.inference import AffinityMaps, load_affinity, predict_affinity, save_affinity
from ppl.refine.affinity.network import AffinityNetwork

__all__ = [
    "AffinityMaps",
    "AffinityNetwork",
    "load_affinity",
    "predict_affinity",
    "save_affinity",
]
