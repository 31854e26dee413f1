"""A linear classifier of pixels, fitted to the masks of many images: what objects of a class have in common."""

from __future__ import annotations

from ppl.refine.pixel_file import load_pixel_classifier, save_pixel_classifier
from ppl.refine.pixel_network import PixelClassifier
from ppl.refine.pixels.config import PixelConfig
from ppl.refine.pixels.fitting import PixelSummary, fit_pixel_classifier

__all__ = [
    "PixelClassifier",
    "PixelConfig",
    "PixelSummary",
    "fit_pixel_classifier",
    "load_pixel_classifier",
    "save_pixel_classifier",
]
