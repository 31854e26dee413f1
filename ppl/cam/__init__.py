"""Class activation maps of any classifier: many images, scales and flips in; maps, masks and files out."""

from __future__ import annotations

from ppl.cam.background import PowerBackground, otsu_background, parse_background
from ppl.cam.classifier import Classifier
from ppl.cam.config import CamConfig
from ppl.cam.formats import MAP_FORMATS, MapFormat, read_maps, register_map_format, write_maps
from ppl.cam.generate import check_maps, generate, iter_generate
from ppl.cam.methods import METHODS, Reading, gradient_method, register_method
from ppl.cam.probabilities import maps_to_probs
from ppl.cam.propagation import propagate
from ppl.cam.result import CamResult

__all__ = [
    "MAP_FORMATS",
    "METHODS",
    "CamConfig",
    "CamResult",
    "Classifier",
    "MapFormat",
    "PowerBackground",
    "Reading",
    "check_maps",
    "generate",
    "gradient_method",
    "iter_generate",
    "maps_to_probs",
    "otsu_background",
    "parse_background",
    "propagate",
    "read_maps",
    "register_map_format",
    "register_method",
    "write_maps",
]
