"""Affinities learned from confident CAM labels: which neighbouring cells belong together."""

from __future__ import annotations

from ppl.refine.affinity.config import AffinityConfig, ConfidentLabelConfig
from ppl.refine.affinity.labelled_images import LabelledImages
from ppl.refine.affinity.labels import confident_label_folder, confident_labels
from ppl.refine.affinity.learning import learn_affinity
from ppl.refine.affinity.losses import affinity_loss
from ppl.refine.affinity.training import AffinitySummary, fit_affinity
from ppl.refine.affinity_maps import AffinityMaps, load_affinity, predict_affinity, save_affinity
from ppl.refine.affinity_network import AffinityNetwork

__all__ = [
    "AffinityConfig",
    "AffinityMaps",
    "AffinityNetwork",
    "AffinitySummary",
    "ConfidentLabelConfig",
    "LabelledImages",
    "affinity_loss",
    "confident_label_folder",
    "confident_labels",
    "fit_affinity",
    "learn_affinity",
    "load_affinity",
    "predict_affinity",
    "save_affinity",
]
