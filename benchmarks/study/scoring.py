"""What the maps of a trained cell are worth, on pictures with masks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from dilated import fast_dilated
from features import Group, autocast
from torch import Tensor

from ppl.cam import CamResult
from ppl.cam.arithmetic import peak_one, sharpen
from ppl.cam.capture import graph_from
from ppl.cam.methods.gradient import gradient_maps
from ppl.data import TaggedImages
from ppl.metrics import ConfusionMatrix, PartCoverage, ThresholdSweep, mean_average_precision
from ppl.models import PPLNet
from ppl.refine import crf_many

REFINE = "deeplab"
"""Preset of the CRF."""
REFINED = ("whole", "layercam")
UNREFINED = {"crf_auto": float("nan"), "crf_best": float("nan")}
SIZES = {"tiny": 0.0, "small": 0.005, "medium": 0.02, "large": 0.08}
"""Objects by the share of the picture from which on they are called so."""

READINGS = ("all", "whole", "patched", "layercam")
"""What maps are read from: all branches together, the un-patched one, the patched ones together; the un-patched one
sharpened by LayerCAM of LAYER."""
LAYER = "group4"
"""What `ppl.cam` takes in the whole network: the last of its default cuts."""


@torch.inference_mode()
def maps_of(
    model: PPLNet, group: Group, rows: list[Tensor], readings: Sequence[str]
) -> tuple[list[list[CamResult]], Tensor]:
    """CAMs of pictures of one size, as `ppl.cam.generate` makes them but from the front's maps; by reading and picture.

    Returns:
        The results, and the logits (n, K) of all branches together, the mean over scales and mirror images.
    """
    n, size, device = len(rows), group.size, next(model.parameters()).device
    counts = [len(row) for row in rows]
    which = torch.arange(n).repeat_interleave(torch.tensor(counts)).to(device)
    classes = torch.cat(rows).to(device)
    totals: dict[str, Tensor] = {reading: torch.zeros(len(which), *size, device=device) for reading in readings}
    evidence, logits = torch.zeros(len(which), *size, device=device), []
    for maps in group.maps:
        x = maps.flatten(0, 1).to(device).float().contiguous(memory_format=torch.channels_last)
        with autocast(device):
            parts = model.branch_class_maps(x)
        stacked = torch.stack([part.float() for part in parts])
        whole = whole_of(model, stacked.unbind())
        values = {"all": stacked.sum(0), "whole": whole, "patched": stacked[:-1].sum(0), "layercam": whole}
        logits.append(model.pool(values["all"]).view(n, 2, -1).mean(1))
        for reading in readings:
            totals[reading] += resized(folded(values[reading].relu(), which, classes), size)
        if "layercam" in readings:
            evidence += resized(evidence_of(LAYER, model, x, which, classes), size)
    if "layercam" in readings:
        totals["layercam"] = sharpen(totals["layercam"], evidence)
    results = [
        [_result(own, row, size) for own, row in zip(totals[reading].cpu().split(counts), rows, strict=True)]
        for reading in readings
    ]
    return results, torch.stack(logits).mean(0).cpu()


def whole_of(model: PPLNet, branches: Sequence[Tensor]) -> Tensor:
    """The un-patched branch; without patches the branches are alike, and their sum is read."""
    return branches[-1] if model.cuts else torch.stack(list(branches)).sum(0)


def evidence_of(layer: str, model: PPLNet, x: Tensor, which: Tensor, classes: Tensor) -> Tensor:
    """Return LayerCAM maps (k, h, w) of a stage for the pairs of picture and class, at most 1."""
    stage = next(stage for stage in model.stages if stage.name == layer)
    root = graph_from(model.backbone.get_submodule(stage.module))
    with root as roots, autocast(x.device), fast_dilated(x.device):
        maps = whole_of(model, model.unpatched_class_maps(x.clone()))

    def sums(images: Tensor, classes: Tensor) -> Tensor:
        return maps[images, classes].float().sum(dim=(1, 2))

    def positive(features: Tensor, gradients: Tensor) -> Tensor:
        return (gradients.relu() * features).sum(dim=1)

    pairs = torch.cat([2 * which, 2 * which + 1]), torch.cat([classes, classes])
    both = gradient_maps(positive, roots[0], lambda features: features, sums, *pairs).relu()
    first, second = both.chunk(2)
    return peak_one(first + second.flip(-1))


def folded(maps: Tensor, which: Tensor, classes: Tensor) -> Tensor:
    """Maps (k, h, w) of the pairs of picture and class; pictures and mirror images take turns in `maps`."""
    return maps[2 * which, classes] + maps[2 * which + 1, classes].flip(-1)


def resized(maps: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(maps[None], size, mode="bilinear")[0] if len(maps) else maps.new_zeros(0, *size)


def _result(total: Tensor, row: Tensor, size: tuple[int, int]) -> CamResult:
    return CamResult(peak_one(total), row, torch.ones(len(row)), size)


def size_mask(truth: np.ndarray) -> np.ndarray:
    """1 to 4 on objects that are tiny to large, 0 on the background."""
    edges = list(SIZES.values())
    found = np.zeros_like(truth)
    for value in np.setdiff1d(np.unique(truth), [0, 255]):
        area = truth == value
        found[area] = np.searchsorted(edges, area.mean(), side="right")
    return found


class Tally:
    """Scores of one way to read the maps: at the label-free background rule, at the best threshold, after a CRF."""

    def __init__(self, images: TaggedImages) -> None:
        self.images = images
        self.sweep = ThresholdSweep(len(images.classes) + 1)
        self.auto = self._matrix()
        self.results: dict[int, CamResult] = {}

    def update(self, number: int, truth: np.ndarray, result: CamResult) -> None:
        self.sweep.update(truth, result.maps, result.classes)
        self.auto.update(truth, result.to_mask(background="auto"))
        # in half precision: the maps of a whole split are kept until its best threshold is known
        self.results[number] = CamResult(result.maps.half(), result.classes, result.scores, result.size)

    def compute(self) -> dict[str, float]:
        best = self.sweep.best()
        found = self.sweep.scores(best)
        counts = self.sweep.confusions()[int((self.sweep.thresholds - best).abs().argmin())].double()
        objects, called, hits = counts[1:].sum(), counts[:, 1:].sum(), counts.diagonal()[1:].sum()
        missed, spilt = counts[1:, 0].sum(), counts[0, 1:].sum()
        wrong = counts.sum() - counts.diagonal().sum()
        rows = {
            "miou_auto": float(self.auto.compute()["miou"]),
            "miou_best": float(found["miou"]),
            "recall": float(hits / objects),
            "precision": float(hits / called),
            "spilt": float(spilt / wrong),
            "missed": float(missed / wrong),
            **{f"covered_{name}": value for name, value in self._covered(best).items()},
            **{f"iou_{name}": iou for name, iou in zip(self._labels(), found["iou"].tolist(), strict=True)},
        }
        return {"threshold": best} | {key: 100 * value for key, value in rows.items()}

    def refined(self) -> dict[str, float]:
        """After the CRF, from the background rule and from the threshold that was best before it."""
        return {f"crf_{name}": self._refined(rule) for name, rule in (("auto", "auto"), ("best", self.sweep.best()))}

    def _pixels(self, number: int) -> np.ndarray:
        return np.asarray(self.images[number].read_image())

    def _refined(self, background: Any) -> float:
        matrix = self._matrix()
        numbers = sorted(self.results)
        refined = crf_many(
            (partial(self._pixels, number) for number in numbers),
            (self._whole(number).to_probs(background).numpy() for number in numbers),
            preset=REFINE,
            num_workers=torch.get_num_threads(),
        )
        for number, probs in zip(numbers, refined, strict=True):
            labels = np.concatenate([[0], self.results[number].classes.numpy() + 1])
            matrix.update(self.images[number].read_mask(), labels[probs.argmax(axis=0)])
        return 100 * float(matrix.compute()["miou"])

    def _covered(self, threshold: float) -> dict[str, float]:
        covered = PartCoverage(tuple(SIZES))
        for number in self.results:
            truth = self.images[number].read_mask()
            covered.update(truth, self._whole(number).to_mask(threshold), size_mask(truth))
        return covered.compute()

    def _whole(self, number: int) -> CamResult:
        kept = self.results[number]
        return CamResult(kept.maps.float(), kept.classes, kept.scores, kept.size)

    def _matrix(self) -> ConfusionMatrix:
        return ConfusionMatrix(len(self.images.classes) + 1)

    def _labels(self) -> Sequence[str]:
        return ("background", *self.images.classes)


def score(
    model: PPLNet, groups: Iterable[Group], images: TaggedImages, readings: Sequence[str], crf: bool = True
) -> list[dict[str, Any]]:
    """One row per reading, in percent; `crf` adds the scores after it for the readings that are refined."""
    model.requires_grad_(False)
    targets = images.targets()
    tallies = {reading: Tally(images) for reading in readings}
    logits = torch.zeros(len(images), len(images.classes))
    for group in groups:
        rows = [targets[number].nonzero().flatten() for number in group.members]
        results, logits[group.members] = maps_of(model, group, rows, readings)
        for reading, own in zip(readings, results, strict=True):
            for number, result in zip(group.members, own, strict=True):
                tallies[reading].update(number, images[number].read_mask(), result)
    precision = 100 * float(mean_average_precision(logits, targets))
    refined = REFINED if crf else ()
    return [
        {"reading": name, "map": precision} | tally.compute() | (tally.refined() if name in refined else UNREFINED)
        for name, tally in tallies.items()
    ]
