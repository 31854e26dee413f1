"""Maps of a batch of images of one size: all scales, mirror images and classes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from ppl.backbones.half import half_precision
from ppl.cam.classifier import Classifier
from ppl.cam.config import CamConfig
from ppl.cam.eval_mode import in_eval_mode
from ppl.cam.finite import find_bad_layer
from ppl.cam.labels import predicted_labels
from ppl.cam.methods.registry import METHODS, MapsOf, Reading
from ppl.cam.propagation import SHARPNESS, propagate
from ppl.cam.result import CamResult
from ppl.cam.sizes import scaled_size
from ppl.errors import PPLValueError

__all__ = ["Job", "compute_batch"]

_GUARD = 1e-5
# Pixels of one forward pass where no batch size is given. A CPU gains nothing from more; in a ResNet-50 they take about
# a quarter of a GB there, and 4 GB on CUDA.
_PIXELS = {"cpu": 2**20, "cuda": 2**24}


@dataclass(frozen=True)
class Job:
    """A call of `generate` without its images.

    Attributes:
        classifier: the model.
        config: the settings.
        device: device of the results.
    """

    classifier: Classifier
    config: CamConfig
    device: torch.device

    @property
    def scales(self) -> list[float]:
        """The scales, the one nearest to 1 first: classes, scores and feature size are read from that one."""
        return sorted(self.config.scales, key=lambda scale: abs(math.log(scale)))

    @property
    def multi_label(self) -> bool:
        """Whether more than one class is predicted for an image."""
        told = self.config.multi_label
        return self.classifier.multi_label if told is None else told

    @property
    def example(self) -> Tensor:
        """A tensor of the dtype and on the device that the model computes with."""
        parameters = self.classifier.model.parameters()
        return next((one for one in parameters if one.is_floating_point()), torch.empty(0))

    def images_per_pass(self, height: int, width: int) -> int:
        """Return how many images of that size, beside their mirror images, go through the model at once."""
        if self.config.batch_size is not None:
            return self.config.batch_size
        pixels = height * width * max(self.config.scales) ** 2 * (2 if self.config.flip else 1)
        return max(1, int(_PIXELS.get(self.example.device.type, _PIXELS["cpu"]) / pixels))

    def map_size(self, image: tuple[int, int], feature: tuple[int, int]) -> tuple[int, int]:
        """Return (h,w) of the maps of an image of that size, with a feature map of that size."""
        size = self.config.size
        if isinstance(size, tuple):
            return size
        return image if size == "image" else feature


def compute_batch(
    job: Job, images: Sequence[Tensor], rows: Sequence[Tensor] | None, numbers: Sequence[int]
) -> list[CamResult]:
    """Compute the maps of images of one size.

    Args:
        job: model and settings.
        images: normalised (C,H,W) each, all of one size.
        rows: per image its classes, int64 (k,); None for those that the model predicts.
        numbers: place of each image in the caller's list, for messages.

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
        guard = _GUARD if reading.has_scale else torch.finfo(torch.float32).tiny
        total, evidence = _sum_of_views(reading, pairs, classes, size, len(images))
        features = reading.features
        del reading  # which may hold a graph
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


def sharpen(total: Tensor, evidence: Tensor) -> Tensor:
    """Multiply maps by the square root of evidence, which is first divided by its spatial maximum.

    The square root keeps cells of weak evidence; it is our choice, see the page of results.

    Args:
        total: (n,h,w), 0 or more.
        evidence: (n,h,w), 0 or more.

    Returns:
        (n,h,w), nowhere above `total`.

    Example:
        >>> sharpen(torch.tensor([[[4.0, 4.0]]]), torch.tensor([[[0.25, 1.0]]])).round().tolist()
        [[[2.0, 4.0]]]
    """
    return total * peak_one(evidence).sqrt()


def peak_one(maps: Tensor, guard: float = _GUARD) -> Tensor:
    """Divide maps (n,h,w) by their spatial maximum plus a guard against 0.

    Example:
        >>> peak_one(torch.tensor([[[1.0, 4.0]]])).round(decimals=2).tolist()
        [[[0.25, 1.0]]]
    """
    return maps / (maps.amax(dim=(1, 2), keepdim=True) + guard) if len(maps) else maps


def _own(part: Tensor, job: Job) -> Tensor:
    """A copy made outside of inference mode: it has memory of its own and may enter a training loss."""
    return part.to(job.device, copy=True)


def _read(job: Job, x: Tensor, scale: float) -> Reading:
    """What the method reads at one scale, mirror images in the second half."""
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
    """The cells of maps (...,h,w) that lie over the image and not over its padding."""
    height, width = _cells((maps.shape[-2], maps.shape[-1]), size, padded)
    return maps[..., :height, :width]


def _cells(cells: tuple[int, int], size: tuple[int, int], padded: tuple[int, int]) -> tuple[int, int]:
    height, width = (math.ceil(n * own / full) for n, own, full in zip(cells, size, padded, strict=True))
    return height, width


def _sum_of_views(
    reading: Reading, pairs: Tensor, classes: Tensor, size: tuple[int, int], count: int
) -> tuple[Tensor, Tensor | None]:
    """The maps (n,*size) of one scale, summed over an image and its mirror image, and the evidence for them."""
    mirrored = len(reading.logits) > count
    if mirrored:
        pairs, classes = torch.cat((pairs, pairs + count)), torch.cat((classes, classes))
    if not len(classes):
        return reading.logits.new_zeros((0, *size), dtype=torch.float32), None
    maps = _resized(_mirrored_back(reading.maps(pairs, classes), mirrored), size)
    if reading.evidence is None:
        return maps, None
    # Scales have gradients of different sizes: each counts the same.
    evidence = peak_one(_mirrored_back(reading.evidence(pairs, classes), mirrored))
    return maps, _resized(evidence, size)


def _propagated(total: Tensor, features: Sequence[Tensor], counts: Sequence[int]) -> Tensor:
    """The maps (n,h,w) of all images, each propagated with the features of its own image."""
    sharpness = SHARPNESS[-len(features) :]
    parts = torch.split(total, list(counts))
    return torch.cat([propagate(own, [layer[i] for layer in features], sharpness) for i, own in enumerate(parts)])


def _mirrored_back(maps: Tensor, mirrored: bool) -> Tensor:
    """The sum of both halves, the second of which is mirrored."""
    if not mirrored:
        return maps
    first, second = maps.chunk(2)
    return first + second.flip(-1)


def _resized(maps: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(maps[None], size, mode="bilinear", align_corners=False)[0]


def _not_finite(job: Job, x: Tensor, logits: Tensor, numbers: Sequence[int]) -> PPLValueError:
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
    """Eval mode, no gradients and, if wanted, mixed precision; afterwards all as before."""
    half = half_precision(device) if job.config.amp else None
    autocast = nullcontext() if half is None else torch.autocast(device.type, dtype=half)
    with in_eval_mode(job.classifier.model), torch.inference_mode(), autocast:
        yield
