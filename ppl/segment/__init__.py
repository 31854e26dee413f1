"""Segmentation networks: from masks to a network that segments new images without tags."""

from __future__ import annotations

from ppl.models.export import export_onnx
from ppl.segment.config import SegmentConfig
from ppl.segment.decoders import DECODERS
from ppl.segment.files import load, save_segmenter
from ppl.segment.fit import fit
from ppl.segment.losses import segmentation_loss
from ppl.segment.predict import iter_predict, predict
from ppl.segment.result import SegmentResult
from ppl.segment.samples import with_masks
from ppl.segment.segmenter import Segmenter, create_segmenter

__all__ = [
    "DECODERS",
    "SegmentConfig",
    "SegmentResult",
    "Segmenter",
    "create_segmenter",
    "export_onnx",
    "fit",
    "iter_predict",
    "load",
    "predict",
    "save_segmenter",
    "segmentation_loss",
    "with_masks",
]
