"""Maps of a batch of images of one size: all scales, mirror images and classes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from ppl.backbones.half import half_precision
from ppl.cam.arithmetic import GUARD, mirrored_back, peak_one, resized, sharpen
from ppl.cam.eval_mode import in_eval_mode
from ppl.cam.finite import find_bad_layer
from ppl.cam.job import Job
from ppl.cam.labels import predicted_labels
from ppl.cam.methods.registry import METHODS, Reading
from ppl.cam.propagation import SHARPNESS, propagate
from ppl.cam.readings import MapsOf
from ppl.cam.result import CamResult
from ppl.cam.sizes import scaled_size
from ppl.errors import PPLValueError

__all__ = ["compute_batch"]


def compute_batch(
    job: Job, images: Sequence[Tensor], rows: Sequence[Tensor] | None, numbers: Sequence[int]
) -> list[CamResult]:
    """Compute the maps of images of one size.

    Args:
        job: model and settings.
        images: normalised (C,H,W) each, all of one size.
        rows: the classes of each image, int64 (k,); None for the classes that the model predicts.
        numbers: index of each image in the caller's list, for messages.

    Returns:
        One result per image.

    Raises:
        PPLValueError: if the model does not take images of that size, or gives NaN or infinity.
    """
    example = job.example
    x = torch.stack([image.to(example.device, example.dtype) for image in images])
    image_size = (x.shape[2], x.shape[3])
    sizes = job.classifier.sizes
    for scale in job.scales:
        sizes.check_size(sizes.padded(scaled_size(image_size, scale)))
    with _forward_only(job, x.device):
        first, *others = job.scales
        reading = _read(job, x, first)
        logits = reading.logits[: len(images)]
        rows = predicted_labels(logits, multi_label=job.multi_label) if rows is None else rows
        rows = [row.to(x.device) for row in rows]
        counts = [len(row) for row in rows]
        pairs = torch.arange(len(images), device=x.device).repeat_interleave(torch.tensor(counts, device=x.device))
        classes = torch.cat(list(rows))
        scores = logits.float().sigmoid()[pairs, classes]
        finite = [reading.logits.isfinite().all()]
        size = job.map_size(image_size, reading.size)
        guard = GUARD if reading.has_scale else torch.finfo(torch.float32).tiny
        total, evidence = _sum_of_views(reading, pairs, classes, size, len(images))
        features = reading.features
        del reading  # It may hold a graph of gradients.
        for scale in others:
            reading = _read(job, x, scale)
            features = reading.features if scale == max(job.scales) else features
            finite.append(reading.logits.isfinite().all())
            more, further = _sum_of_views(reading, pairs, classes, size, len(images))
            del reading
            total += more
            if evidence is not None and further is not None:
                evidence += further
        if evidence is not None:
            total = sharpen(total, evidence)
        if features:
            total = _propagated(total, features, counts)
        finite.append(total.isfinite().all())
        if job.config.normalize == "max":
            total = peak_one(total, guard)
        if not torch.stack(finite).all():
            raise _not_finite(job, x, logits, numbers)
    return [
        CamResult(_own(maps, job), _own(own_classes, job), _own(own_scores, job), image_size)
        for maps, own_classes, own_scores in zip(
            torch.split(total, counts), torch.split(classes, counts), torch.split(scores, counts), strict=True
        )
    ]


def _own(part: Tensor, job: Job) -> Tensor:
    """Return a copy made outside of inference mode, which has its own memory and may enter a training loss."""
    return part.to(job.device, copy=True)


def _read(job: Job, x: Tensor, scale: float) -> Reading:
    """Apply the method at one scale; mirror images are the second half of the batch."""
    size = scaled_size((x.shape[2], x.shape[3]), scale)
    if size != x.shape[-2:]:
        x = F.interpolate(x, size, mode="bilinear", align_corners=False)
    if job.config.flip:
        x = torch.cat((x, x.flip(-1)))
    padded = job.classifier.sizes.padded(size)
    if padded != size:
        x = F.pad(x, (0, padded[1] - size[1], 0, padded[0] - size[0]))
    reading = METHODS[job.config.method](job.classifier, x)
    if padded == size:
        return reading

    def cropped(maps_of: MapsOf) -> MapsOf:
        return lambda pairs, classes: _over_image(maps_of(pairs, classes), size, padded)

    evidence = None if reading.evidence is None else cropped(reading.evidence)
    features = tuple(_over_image(layer, size, padded) for layer in reading.features)
    cells = _cells(reading.size, size, padded)
    return replace(reading, size=cells, maps=cropped(reading.maps), evidence=evidence, features=features)


def _over_image(maps: Tensor, size: tuple[int, int], padded: tuple[int, int]) -> Tensor:
    """Return the cells of maps (...,h,w) that lie over the image, without those over its padding."""
    height, width = _cells((maps.shape[-2], maps.shape[-1]), size, padded)
    return maps[..., :height, :width]


def _cells(cells: tuple[int, int], size: tuple[int, int], padded: tuple[int, int]) -> tuple[int, int]:
    """Return how many cells of a map of the padded image lie over the image."""
    height, width = (math.ceil(n * own / full) for n, own, full in zip(cells, size, padded, strict=True))
    return height, width


def _sum_of_views(
    reading: Reading, pairs: Tensor, classes: Tensor, size: tuple[int, int], count: int
) -> tuple[Tensor, Tensor | None]:
    """Return the maps (n,*size) of one scale, summed over image and mirror image, and the evidence for them."""
    mirrored = len(reading.logits) > count
    if mirrored:
        pairs, classes = torch.cat((pairs, pairs + count)), torch.cat((classes, classes))
    if not len(classes):
        return reading.logits.new_zeros((0, *size), dtype=torch.float32), None
    maps = resized(mirrored_back(reading.maps(pairs, classes), mirrored), size)
    if reading.evidence is None:
        return maps, None
    # Gradients differ in size from scale to scale. After division by the maximum every scale counts the same.
    evidence = peak_one(mirrored_back(reading.evidence(pairs, classes), mirrored))
    return maps, resized(evidence, size)


def _propagated(total: Tensor, features: Sequence[Tensor], counts: Sequence[int]) -> Tensor:
    """Propagate the maps (n,h,w) of each image with the features of the image."""
    sharpness = SHARPNESS[-len(features) :]
    parts = torch.split(total, list(counts))
    return torch.cat([propagate(own, [layer[i] for layer in features], sharpness) for i, own in enumerate(parts)])


def _not_finite(job: Job, x: Tensor, logits: Tensor, numbers: Sequence[int]) -> PPLValueError:
    """Return the error that names the first image and the first layer with NaN or infinity."""
    bad = [number for number, row in zip(numbers, logits.isfinite().all(dim=1).tolist(), strict=True) if not row]
    layer = find_bad_layer(job.classifier.model, x)
    where = f"its layer {layer!r} is the first that does" if layer else "its method does"
    precision = "float32" if job.config.amp or x.dtype != torch.float32 else "smaller weights"
    return PPLValueError(
        f"{job.classifier.name!r} returns NaN or infinity for image {bad[0] if bad else numbers[0]}, though weights "
        f"and pixels are finite: {where}; try {precision}"
    )


@contextmanager
def _forward_only(job: Job, device: torch.device) -> Iterator[None]:
    """Switch to eval mode, inference mode and, if set, mixed precision, and back afterwards."""
    half = half_precision(device) if job.config.amp else None
    autocast = nullcontext() if half is None else torch.autocast(device.type, dtype=half)
    with in_eval_mode(job.classifier.model), torch.inference_mode(), autocast:
        yield
