"""The class activation maps of one image, and their file."""

from __future__ import annotations

import math
import os
import warnings
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ppl.cam.background import Background, background_score
from ppl.cam.probabilities import DEFAULT_BACKGROUND, check_range, maps_to_probs
from ppl.errors import PPLFileNotFoundError, PPLValueError
from ppl.io.files import atomic_write

__all__ = ["CamResult"]

_IGNORE = 255


@dataclass(frozen=True, eq=False)
class CamResult:
    """The maps of the classes of one image.

    Args:
        maps: (k,h,w) float32; in [0,1] unless they were made with `normalize="none"`.
        classes: (k,) int64, the class of each map, ascending, from 0.
        scores: (k,) float32, the model's probability (sigmoid of the logit) of each class.
        size: (H,W) of the image.

    Raises:
        PPLValueError: if the shapes do not fit together.

    Example:
        >>> import torch
        >>> maps = torch.tensor([[[1.0, 0.2]], [[0.0, 0.3]]])
        >>> result = CamResult(maps, torch.tensor([3, 7]), torch.tensor([0.9, 0.6]), (1, 2))
        >>> result.to_mask(background=0.25)
        tensor([[4, 8]], dtype=torch.uint8)
    """

    maps: Tensor
    classes: Tensor
    scores: Tensor
    size: tuple[int, int]

    def __post_init__(self) -> None:
        count = self.maps.shape[0] if self.maps.ndim == 3 else -1
        if tuple(self.classes.shape) != (count,) or tuple(self.scores.shape) != (count,):
            raise PPLValueError(
                "maps, classes and scores must have shapes (k,h,w), (k,) and (k,), got "
                f"{tuple(self.maps.shape)}, {tuple(self.classes.shape)} and {tuple(self.scores.shape)}"
            )

    def to_mask(self, background: Background = DEFAULT_BACKGROUND) -> Tensor:
        """Give every pixel its best class, or the background where the background's score is as large.

        The background wins a tie with a class, as in IRN; of two equal classes the lower one wins.

        Args:
            background: a threshold in [0,1], for which published methods take 0.15 to 0.26; "auto", which looks at this
                image's maps alone; or a rule such as `PowerBackground(alpha=4)`. That "auto" is the default is our
                choice: no threshold has to be searched on masks.

        Returns:
            (h,w): 0 is the background, class c is c+1; uint8, or int64 if a label is not below 255 ("ignore").

        Raises:
            PPLValueError: if `background` is none of these, or the maps hold NaN, infinity or, unless it is "auto",
                values above 1.
        """
        height, width = self.maps.shape[1:]
        if len(self.classes) == 0:
            return torch.zeros(height, width, dtype=torch.uint8, device=self.maps.device)
        any_scale = isinstance(background, str)  # "auto" looks for a threshold in the values themselves
        check_range(self.maps, lowest_allowed=-math.inf, highest_allowed=math.inf if any_scale else 1.0)
        best, index = self.maps.max(dim=0)
        labels = torch.where(best > background_score(best, background), self.classes[index] + 1, 0)
        if (self.classes + 1 == _IGNORE).any():
            warnings.warn(
                f"class {_IGNORE - 1} has the value {_IGNORE} in this mask, which files of masks and scores take for "
                '"ignore": give such classes other numbers before the mask is written',
                stacklevel=2,
            )
        return labels if int(self.classes.max()) + 1 >= _IGNORE else labels.to(torch.uint8)

    def to_probs(self, background: Background = DEFAULT_BACKGROUND) -> Tensor:
        """Put the background's score in front of the maps and divide every pixel by its sum, as refinement needs.

        Args:
            background: as in :meth:`to_mask`; both agree on which channel is the largest.

        Returns:
            (1+k,h,w) float32: channel 0 is the background, channel i+1 belongs to `classes[i]`.

        Raises:
            PPLValueError: if `background` is none of these, or a value is not finite or outside [0,1].
        """
        return maps_to_probs(self.maps, background)

    def to(self, device: torch.device | str) -> CamResult:
        """Return the same result with its tensors on `device`."""
        return CamResult(self.maps.to(device), self.classes.to(device), self.scores.to(device), self.size)

    def save(self, path: str | os.PathLike[str], *, half: bool = False) -> None:
        """Write a compressed `.npz` with the arrays maps, classes, scores and size, atomically.

        Maps and scores are written as float32, whatever their kind of float.

        Args:
            path: the file.
            half: keep the maps as float16, in half the space, exact to 3 decimals.

        Raises:
            FileWriteError: if the disk is full or the place cannot be written to.
        """
        maps, scores = (tensor.detach().float().cpu().numpy() for tensor in (self.maps, self.scores))
        with atomic_write(path) as handle:
            np.savez_compressed(
                handle,
                maps=maps.astype(np.float16) if half else maps,
                classes=self.classes.cpu().numpy(),
                scores=scores,
                size=np.asarray(self.size, dtype=np.int64),
            )

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> CamResult:
        """Read a CAM file. Nothing is ever unpickled.

        Args:
            path: a file that :meth:`save` wrote, or any `.npz` with the arrays maps (k,h,w) and classes (k,). Without
                the array scores, the scores are NaN; without size, the size is that of the maps.

        Returns:
            The result, on the CPU, maps in float32.

        Raises:
            PPLFileNotFoundError: if there is no such file.
            PPLValueError: if the file is no CAM file, or is broken.
        """
        try:
            with np.load(path, allow_pickle=False) as file:
                maps, classes = file["maps"].astype(np.float32), file["classes"].astype(np.int64)
                scores = file["scores"].astype(np.float32) if "scores" in file else np.full(len(maps), np.nan, "f4")
                height, width = file["size"].tolist() if "size" in file else maps.shape[1:]
                if len(classes) and classes.min() < 0:
                    raise PPLValueError(f"class {classes.min()} is below 0")
                maps, classes, scores = map(torch.from_numpy, (maps, classes, scores))
                return cls(maps, classes, scores, (height, width))
        except FileNotFoundError as error:
            raise PPLFileNotFoundError(f"no CAM file at {os.fspath(path)}") from error
        except Exception as error:  # numpy, zip and zlib call a broken file by many names
            raise PPLValueError(
                f"{os.fspath(path)} is not a whole CAM file ({error}): write it again with CamResult.save"
            ) from error
