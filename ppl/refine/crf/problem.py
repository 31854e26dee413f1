"""One CRF inference that is checked and ready for an engine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ppl.refine.crf.config import CrfConfig

__all__ = ["Problem"]


@dataclass(frozen=True)
class Problem:
    """One inference that is ready to run.

    Attributes:
        backend: name of the engine.
        device: device of the engine.
        config: checked settings.
        image: (H, W, 3) uint8, contiguous; None if there are features. For the torch engine `image`, `features` and
            `unary` are tensors on the device.
        features: (H, W, C) float32, contiguous, in place of the image; else None.
        unary: (L, H, W) float32 energies. A single label is certain and needs no engine.
        finish: turns the probabilities of these labels into the result that the caller gets.
        copies: number of labels that the last energy stands for.
    """

    backend: str
    device: str
    config: CrfConfig
    image: Any
    features: Any
    unary: Any
    finish: Callable[[Any], Any]
    copies: int = 1

    @property
    def pixels(self) -> int:
        """Height times width."""
        return int(self.unary.shape[1] * self.unary.shape[2])
