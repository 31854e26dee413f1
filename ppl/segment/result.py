"""The prediction of a segmentation network for one image, and its file."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor

from ppl.errors import PPLValueError
from ppl.io import atomic_write, write_mask

__all__ = ["SegmentResult"]


@dataclass(frozen=True, eq=False)
class SegmentResult:
    """Classes of the pixels of one image.

    Args:
        mask: (h,w) uint8: 0 is the background, class c is c+1.
        probs: (K+1,h,w) float32, which sum to 1 in every pixel, channel 0 the background; None for an image that was
            predicted in windows and whose probabilities would not fit into memory.

    Raises:
        PPLValueError: if the shapes do not fit together.

    Example:
        >>> import torch
        >>> probs = torch.tensor([[[0.1, 0.8]], [[0.9, 0.2]]])
        >>> SegmentResult(probs.argmax(0).to(torch.uint8), probs).mask
        tensor([[1, 0]], dtype=torch.uint8)
    """

    mask: Tensor
    probs: Tensor | None = None

    def __post_init__(self) -> None:
        if self.mask.ndim != 2 or (self.probs is not None and self.probs.shape[1:] != self.mask.shape):
            shape = None if self.probs is None else tuple(self.probs.shape)
            raise PPLValueError(f"mask must be (h,w) and probs (K+1,h,w), got {tuple(self.mask.shape)} and {shape}")

    @property
    def size(self) -> tuple[int, int]:
        """(h,w) of the image."""
        return self.mask.shape[0], self.mask.shape[1]

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the mask as a palette PNG (`.png`), or mask and probabilities as arrays (`.npz`), whole or not at all.

        Args:
            path: the file; the suffix decides.

        Raises:
            PPLValueError: for another suffix, or `.npz` without probabilities.
            FileWriteError: if the disk is full or the place cannot be written to.
        """
        suffix = Path(path).suffix.lower()
        if suffix == ".png":
            write_mask(path, self.mask)
        elif suffix != ".npz":
            raise PPLValueError(f"{os.fspath(path)} must end in .png (mask) or .npz (mask and probabilities)")
        elif self.probs is None:
            raise PPLValueError(f"{os.fspath(path)} needs probabilities, which this image has not: save a .png")
        else:
            with atomic_write(path) as handle:
                np.savez_compressed(handle, mask=self.mask.cpu().numpy(), probs=self.probs.float().cpu().numpy())
