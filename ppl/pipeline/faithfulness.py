"""Tests of a few CAMs of a run: do they show what the classifier looks at?"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from ppl.cam import CamResult
from ppl.cam.images import to_tensor
from ppl.cam.sizes import net_sizes, scaled_size
from ppl.data import Sample, TaggedImages
from ppl.io.fingerprint import fingerprint, sha256
from ppl.metrics import deletion, energy_inside, insertion, pointing_game
from ppl.models import PPLNet, load_model
from ppl.pipeline.cams import cam_keys, cam_settings, outdated_cams
from ppl.pipeline.device import torch_device
from ppl.pipeline.recipe import Recipe
from ppl.pipeline.run_folder import RunFolder
from ppl.pipeline.splits import spread_tagged

__all__ = ["measure_faithfulness"]

_STEPS = 10
"""Steps of deletion and insertion; each curve costs one more passes of the image."""
_PIXELS = 10**6
"""Pixels in one pass."""

Measured = dict[str, dict[str, list[float]]]
"""Values by kind of map and name of the measure, one per map."""


def measure_faithfulness(recipe: Recipe, folder: RunFolder, split: str, images: TaggedImages) -> None:
    """Measure deletion, insertion and, with true masks, pointing game and energy of a few CAMs, for the manifest.

    Images stand at equal distances over the split and are shrunk to the training size. The same numbers of a map that
    falls off from the middle of every picture show what a CAM must beat. Nothing is measured again for CAM files of
    the same content, and images whose CAM file is missing or outdated are left out.

    Args:
        recipe: the recipe of the run.
        folder: a run whose classifier is trained.
        split: name of the split in the run folder.
        images: the images of the split.
    """
    sample = images.subset(sample.image_id for sample in spread_tagged(images, recipe.faithfulness))
    outdated = set(outdated_cams(recipe, folder, split, sample))
    sample = sample.subset(image_id for image_id in sample.image_ids if image_id not in outdated)
    if not sample:
        return
    weights = folder.weights(recipe.cam.checkpoint)
    masks = {one.image_id: fingerprint(one.read_mask().tolist()) for one in sample if one.mask is not None}
    content = [cam_settings(recipe.cam, sha256(weights)), cam_keys(sample, recipe.cam, recipe.num_workers), masks]
    key = fingerprint([*content, recipe.train.size, _STEPS])
    if folder.read_manifest().get("faithfulness", {}).get(split, {}).get("key") == key:
        return
    model = load_model(weights).eval().to(torch_device(recipe.device))
    measured: Measured = {"CAM": defaultdict(list), "middle of the picture": defaultdict(list)}
    for one in sample:
        _measure(model, one, CamResult.load(folder.cams(split) / f"{one.image_id}.npz"), recipe, measured)
    scores = {kind: {name: _mean(values) for name, values in found.items()} for kind, found in measured.items()}
    maps = len(measured["CAM"].get("deletion", ()))
    folder.record(faithfulness={split: {"key": key, "images": len(sample), "maps": maps, "scores": scores}})


def _measure(model: PPLNet, sample: Sample, cam: CamResult, recipe: Recipe, measured: Measured) -> None:
    """Add the values of every map of an image."""
    middle = _middle(*cam.size)
    truth = None if sample.mask is None else torch.from_numpy(sample.read_mask())
    device = next(model.parameters()).device
    image = to_tensor(sample.picture, model.data_config, 0).to(device)
    scale = min(recipe.cam.scales[0], max(recipe.train.size) / max(cam.size))
    size = net_sizes(model).padded(scaled_size(cam.size, scale))
    image = F.interpolate(image[None], size, mode="bilinear", align_corners=False, antialias=True)[0]
    for label, own in zip(cam.classes.tolist(), cam.maps, strict=True):
        predict = _probability(model, label)
        inside = None if truth is None else truth == label + 1
        for kind, map_ in (("CAM", own), ("middle of the picture", middle)):
            found = measured[kind]
            small = F.interpolate(map_[None, None], size, mode="bilinear", align_corners=False)[0, 0]
            for name, curve in (("deletion", deletion), ("insertion", insertion)):
                batch = max(1, _PIXELS // small.numel())
                found[name].append(curve(predict, image, small, steps=_STEPS, batch_size=batch).area)
            if inside is not None and inside.any():
                found["peak"].append(float(pointing_game(map_[None], inside[None])))
                found["energy"].append(float(energy_inside(map_[None], inside[None])))


def _probability(model: PPLNet, label: int) -> Callable[[Tensor], Tensor]:
    return lambda images: model(images)[:, label].float().sigmoid()


def _middle(height: int, width: int) -> Tensor:
    """Return the map (H,W) that falls from 1 in the middle to 0 in the corners."""
    rows, columns = torch.linspace(-1, 1, height), torch.linspace(-1, 1, width)
    return 1 - ((rows[:, None] ** 2 + columns**2) / 2).sqrt()


def _mean(values: list[float]) -> float | None:
    """Return the mean without NaN, which is the energy of a map of zeros; None for a mean of nothing."""
    known = [value for value in values if not math.isnan(value)]
    return round(sum(known) / len(known), 5) if known else None
