"""Patch learning on plain tensors: cut maps, merge patches, run layers patch by patch, fuse branches."""

from __future__ import annotations

from ppl.layers.granularity_fusion import GranularityFusion
from ppl.layers.patch_destruct import PatchDestruct, patch_destruct
from ppl.layers.patch_learner import PatchLearner
from ppl.layers.patch_merge import PatchMerge, patch_merge
from ppl.layers.pooling import register_pooling

__all__ = [
    "GranularityFusion",
    "PatchDestruct",
    "PatchLearner",
    "PatchMerge",
    "patch_destruct",
    "patch_merge",
    "register_pooling",
]
