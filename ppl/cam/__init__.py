"""Class activation maps: many images, scales and flips in; maps, masks and files out."""

from __future__ import annotations

from ppl.cam.background import PowerBackground, otsu_background
from ppl.cam.generate import generate, iter_generate
from ppl.cam.methods import METHODS
from ppl.cam.result import CamResult

__all__ = ["METHODS", "CamResult", "PowerBackground", "generate", "iter_generate", "otsu_background"]
