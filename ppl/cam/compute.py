"""Maps of a batch of images of one size: all scales, mirror images and classes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ppl.backbones.half import half_precision
from ppl.backbones.state import EvalMode
from ppl.cam.labels import predicted_labels
from ppl.cam.layercam import peak_one, sharpen
from ppl.cam.methods import METHODS, Reading
from ppl.cam.reader import ClassMapReader
from ppl.cam.result import CamResult
from ppl.cam.settings import Settings

__all__ = ["compute_batch", "scaled_size"]


def compute_batch(
    model: nn.Module,
    reader: ClassMapReader,
    images: Sequence[Tensor],
    rows: Sequence[Tensor] | None,
    settings: Settings,
) -> list[CamResult]:
    """Results of images of one size.

    Args:
        model: the model, whose mode is restored.
        reader: how class maps are read off it.
        images: normalised (3,H,W) each, all of one size.
        rows: per image its classes, int64 (k,); None for those that the model predicts.
        settings: the arguments of `generate`.

    Returns:
        One result per image.
    """
    example = next(model.parameters(), torch.empty(0))
    x = torch.stack([image.to(example.device, example.dtype) for image in images])
    image_size = (x.shape[2], x.shape[3])
    for scale in settings.scales:
        reader.check_size(*reader.padded(*scaled_size(image_size, scale)))
    with _forward_only(model, settings.amp, x.device):
        first, *others = settings.ordered_scales
        reading = _read(reader, x, first, settings)
        logits = reading.logits[: len(images)]
        rows = predicted_labels(logits) if rows is None else [row.to(x.device) for row in rows]
        counts = [len(row) for row in rows]
        which = torch.arange(len(images), device=x.device).repeat_interleave(torch.tensor(counts, device=x.device))
        classes = torch.cat(list(rows))
        scores = logits.float().sigmoid()[which, classes]
        size = settings.map_size(image_size, (reading.activations.shape[2], reading.activations.shape[3]))
        total, evidence = _fold(reading, which, classes, size, len(images))
        del reading  # it may hold a graph
        for scale in others:
            more, further = _fold(_read(reader, x, scale, settings), which, classes, size, len(images))
            total += more
            if further is not None:
                evidence = further if evidence is None else evidence + further
        total = total if evidence is None else sharpen(total, evidence)
        if settings.normalize == "max":
            total = peak_one(total)
    return [
        CamResult(_own(maps, settings), _own(own_classes, settings), _own(own_scores, settings), image_size)
        for maps, own_classes, own_scores in zip(
            torch.split(total, counts), torch.split(classes, counts), torch.split(scores, counts), strict=True
        )
    ]


def _own(part: Tensor, settings: Settings) -> Tensor:
    """A copy made outside of inference mode: it has memory of its own and may enter a training loss."""
    return part.to(settings.device, copy=True)


def _read(reader: ClassMapReader, x: Tensor, scale: float, settings: Settings) -> Reading:
    """What the method reads at one scale, mirror images in the second half."""
    size = scaled_size((x.shape[2], x.shape[3]), scale)
    if size != x.shape[-2:]:
        x = F.interpolate(x, size, mode="bilinear", align_corners=False)
    if settings.flip:
        x = torch.cat((x, x.flip(-1)))
    padded = reader.padded(*size)
    if padded != size:
        x = F.pad(x, (0, padded[1] - size[1], 0, padded[0] - size[0]))
    reading = METHODS[settings.method](reader, x)
    if padded == size:
        return reading
    evidence = reading.evidence
    return Reading(
        _over_image(reading.activations, size, padded),
        reading.logits,
        None if evidence is None else lambda which, classes: _over_image(evidence(which, classes), size, padded),
    )


def _over_image(maps: Tensor, size: tuple[int, int], padded: tuple[int, int]) -> Tensor:
    """The cells that lie over the image and not over what it was padded with."""
    height, width = (math.ceil(n * own / full) for n, own, full in zip(maps.shape[-2:], size, padded, strict=True))
    return maps[..., :height, :width]


def scaled_size(size: tuple[int, int], scale: float) -> tuple[int, int]:
    """(H,W) of an image at a scale, a pixel at least."""
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _fold(
    reading: Reading, which: Tensor, classes: Tensor, size: tuple[int, int], count: int
) -> tuple[Tensor, Tensor | None]:
    """The wanted maps (k,*size) of one scale, float32, one per image and class of it, and the evidence for them."""
    mirrored = len(reading.activations) > count
    if mirrored:
        which, classes = torch.cat((which, which + count)), torch.cat((classes, classes))
    maps = _mirrored_back(reading.activations[which, classes].float(), mirrored)
    if reading.evidence is None:
        return _resized(maps, size), None
    # scales have gradients of different sizes: each has the same say
    evidence = peak_one(_mirrored_back(reading.evidence(which, classes), mirrored))
    return _resized(maps, size), _resized(evidence, size)


def _mirrored_back(maps: Tensor, mirrored: bool) -> Tensor:
    """The sum of both halves, the second of which is mirrored."""
    if not mirrored:
        return maps
    first, second = maps.chunk(2)
    return first + second.flip(-1)


def _resized(maps: Tensor, size: tuple[int, int]) -> Tensor:
    if not len(maps):
        return maps.new_zeros(0, *size)
    return F.interpolate(maps[None], size, mode="bilinear", align_corners=False)[0]


@contextmanager
def _forward_only(model: nn.Module, amp: bool, device: torch.device) -> Iterator[None]:
    """Eval mode, no gradients and, if wanted, mixed precision; afterwards all as before."""
    half = half_precision(device) if amp else None
    autocast = nullcontext() if half is None else torch.autocast(device.type, dtype=half)
    with EvalMode(model.modules()), torch.inference_mode(), autocast:
        yield
