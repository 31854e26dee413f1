"""Maps of a batch of images of one size: all scales, mirror images and classes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ppl.backbones.state import eval_mode
from ppl.cam.labels import predicted_labels
from ppl.cam.methods import METHODS
from ppl.cam.reader import ClassMapReader
from ppl.cam.result import CamResult
from ppl.cam.settings import Settings

__all__ = ["compute_batch"]

_EPS = 1e-5


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
    x = torch.stack([image.to(example.dtype) for image in images]).to(example.device)
    image_size = (x.shape[2], x.shape[3])
    for scale in settings.scales:
        reader.check_size(*_padded(_scaled(image_size, scale), reader))
    with _forward_only(model, settings.amp, x.device):
        first, *others = settings.ordered_scales
        activations, logits = _activations(reader, x, first, settings)
        rows = predicted_labels(logits) if rows is None else [row.to(x.device) for row in rows]
        counts = [len(row) for row in rows]
        which = torch.arange(len(images), device=x.device).repeat_interleave(torch.tensor(counts, device=x.device))
        classes = torch.cat(list(rows))
        scores = logits.float().sigmoid()[which, classes]
        size = settings.map_size(image_size, (activations.shape[2], activations.shape[3]))
        total = _resized(_fold(activations, which, classes, len(images)), size)
        for scale in others:
            activations, _ = _activations(reader, x, scale, settings)
            total += _resized(_fold(activations, which, classes, len(images)), size)
        if settings.normalize == "max" and len(total):
            total /= total.amax(dim=(1, 2), keepdim=True) + _EPS
        total, classes, scores = (tensor.to(settings.device) for tensor in (total, classes, scores))
    # Clones, made outside of inference mode: each result has memory of its own and may enter a training loss.
    return [
        CamResult(maps.clone(), own_classes.clone(), own_scores.clone(), image_size)
        for maps, own_classes, own_scores in zip(
            torch.split(total, counts), torch.split(classes, counts), torch.split(scores, counts), strict=True
        )
    ]


def _activations(reader: ClassMapReader, x: Tensor, scale: float, settings: Settings) -> tuple[Tensor, Tensor]:
    """Activations (B or 2B,K,h,w) at one scale, mirror images in the second half, and the logits (B,K) of the first."""
    count = len(x)
    size = _scaled((x.shape[2], x.shape[3]), scale)
    if size != x.shape[-2:]:
        x = F.interpolate(x, size, mode="bilinear", align_corners=False)
    if settings.flip:
        x = torch.cat((x, x.flip(-1)))
    padded = _padded(size, reader)
    if padded != size:
        x = F.pad(x, (0, padded[1] - size[1], 0, padded[0] - size[0]))
    activations, logits = METHODS[settings.method](reader, x)
    # The cells that lie over the image: all of them, unless it had to be padded.
    cells = [math.ceil(n * own / full) for n, own, full in zip(activations.shape[-2:], size, padded, strict=True)]
    return activations[..., : cells[0], : cells[1]], logits[:count]


def _scaled(size: tuple[int, int], scale: float) -> tuple[int, int]:
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _padded(size: tuple[int, int], reader: ClassMapReader) -> tuple[int, int]:
    return max(size[0], reader.min_size[0]), max(size[1], reader.min_size[1])


def _fold(activations: Tensor, which: Tensor, classes: Tensor, count: int) -> Tensor:
    """The wanted maps (k,h,w), float32: one per image and class of it, mirror images mirrored back and added."""
    chosen = activations[which, classes].float()
    if len(activations) == count:
        return chosen
    return chosen + activations[which + count, classes].float().flip(-1)


def _resized(maps: Tensor, size: tuple[int, int]) -> Tensor:
    if not len(maps):
        return maps.new_zeros(0, *size)
    return F.interpolate(maps[None], size, mode="bilinear", align_corners=False)[0]


@contextmanager
def _forward_only(model: nn.Module, amp: bool, device: torch.device) -> Iterator[None]:
    """Eval mode, no gradients and, if wanted, mixed precision; afterwards all as before."""
    half = torch.bfloat16 if device.type != "cuda" or torch.cuda.is_bf16_supported() else torch.float16
    with eval_mode(model.modules()), torch.inference_mode(), torch.autocast(device.type, dtype=half, enabled=amp):
        yield
