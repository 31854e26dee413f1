"""Segmentation networks: from masks to a network that segments new images without tags."""

from __future__ import annotations

from ppl.segment.files import load, save_segmenter
from ppl.segment.losses import segmentation_loss
from ppl.segment.predict import iter_predict, predict
from ppl.segment.result import SegmentResult
from ppl.segment.segmenter import DECODERS, Segmenter, create_segmenter

__all__ = [
    "DECODERS",
    "SegmentResult",
    "Segmenter",
    "create_segmenter",
    "iter_predict",
    "load",
    "predict",
    "save_segmenter",
    "segmentation_loss",
]
