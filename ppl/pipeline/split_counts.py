"""The counts behind the scores of a split: one confusion matrix per kind of mask."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from torch import Tensor

from ppl.cam import CamResult
from ppl.data import PartMasks
from ppl.errors import PPLError
from ppl.metrics import ConfusionMatrix, PartCoverage, Scores, ThresholdSweep

__all__ = ["SplitCounts"]

Mask = npt.NDArray[np.uint8]


class SplitCounts:
    """Count the pixels of all images of a split, and compute its scores from the totals.

    Args:
        num_classes: number of classes, the background included.
        part_masks: the part masks of the data set, if it has some.
    """

    def __init__(self, num_classes: int, part_masks: PartMasks) -> None:
        self.sweep = ThresholdSweep(num_classes)
        self.matrices: dict[str, ConfusionMatrix] = {}
        """Confusion matrix by kind of mask: "CAM", "refined", "segmenter". A kind without masks has none."""
        self.without_parts: list[str] = []
        """For each image that has no part mask to count, its id and the reason."""
        self._num_classes, self._part_masks = num_classes, part_masks
        self._parts = PartCoverage(part_masks.names)
        self._has_parts = False

    def add(self, image_id: str, target: Mask, cam: CamResult, masks: dict[str, Mask]) -> None:
        """Count one image.

        Args:
            image_id: the image id.
            target: the true mask.
            cam: the CAMs of the image.
            masks: by kind, the masks of the image; "CAM" is among them.
        """
        self.sweep.update(target, cam.maps, cam.classes)
        for kind, mask in masks.items():
            self.matrices.setdefault(kind, ConfusionMatrix(self._num_classes)).update(target, mask)
        if self._part_masks:
            self._add_parts(image_id, target, masks["CAM"])

    def _add_parts(self, image_id: str, target: Mask, mask: Mask) -> None:
        try:
            part_mask = self._part_masks.read(image_id)
            if part_mask is None:
                self.without_parts.append(f"{image_id}: there is no file in {self._part_masks.folder.name}")
                return
            self._parts.update(target, mask, part_mask)
            self._has_parts = True
        except PPLError as error:  # a faulty part mask must not end a run after all its work
            self.without_parts.append(f"{image_id}: {error}")

    @property
    def is_empty(self) -> bool:
        """Whether no pixel counts, since every pixel of the true masks is 255."""
        return "CAM" not in self.matrices or not int(self.matrices["CAM"].counts.sum())

    def scores(self) -> dict[str, float | None]:
        """Return shares in [0, 1] by name, rounded to 5 digits; None for a share of nothing."""
        recall, precision = _foreground(self.matrices["CAM"].counts)
        values: dict[str, float | None] = {
            "CAM mIoU": self._miou("CAM"),
            "recall": recall,
            "precision": precision,
            "CAM best": self.sweep.scores(self.sweep.best())["miou"],
            "refined mIoU": self._miou("refined"),
            "segmenter mIoU": self._miou("segmenter"),
            **(self._parts.compute() if self._has_parts else {}),
        }
        return {name: _rounded(value) for name, value in values.items()}

    def per_class(self, names: Sequence[str]) -> dict[str, dict[str, float | None]]:
        """Return, by kind of mask, the IoU of every class.

        Args:
            names: names of the classes, the background first.
        """
        return {kind: _per_class(names, matrix.compute()) for kind, matrix in self.matrices.items()}

    def image_iou(self, target: Mask, mask: Mask) -> float | None:
        """Return the mean IoU of one image over the classes of its two masks, or None if every pixel is 255."""
        matrix = ConfusionMatrix(self._num_classes)
        matrix.update(target, mask)
        return _rounded(matrix.compute()["miou"])

    def _miou(self, kind: str) -> float | None:
        return self.matrices[kind].compute()["miou"] if kind in self.matrices else None


def _foreground(counts: Tensor) -> tuple[float, float]:
    """Return the recall and the precision of all classes but the background, counted together."""
    counts = counts.double()
    hits = counts.diagonal()[1:].sum()
    classes = counts.shape[0]
    return (hits / counts[1:].sum()).item(), (hits / counts[:, 1:classes].sum()).item()


def _per_class(names: Sequence[str], scores: Scores) -> dict[str, float | None]:
    return {name: _rounded(iou) for name, iou in zip(names, scores["iou"].tolist(), strict=True)}


def _rounded(value: float | None) -> float | None:
    return None if value is None or math.isnan(value) else round(value, 5)
