"""Segment images: scales and mirror images averaged, windows for large images, tags and a CRF as options."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ppl.backbones.half import half_precision
from ppl.cam.eval_mode import in_eval_mode
from ppl.cam.images import ImageLike, as_images, check_images, normalized, read_ahead, to_pixels
from ppl.cam.labels import check_labels
from ppl.cam.stream import check_count
from ppl.errors import PPLTypeError, PPLValueError
from ppl.refine import crf as dense_crf
from ppl.segment.config import SegmentConfig
from ppl.segment.result import SegmentResult
from ppl.segment.segmenter import Segmenter
from ppl.segment.windows import averaged_logits, predicted_windows

__all__ = ["iter_predict", "predict"]

_DEFAULTS = SegmentConfig()

_WHOLE_PIXELS = 2**21
"""Images of more pixels are predicted in windows. 1448x1448: about 3 GB in a ResNet-50 at stride 16 on a GPU."""
_WINDOW, _STEP = 768, 512
_KEPT_BYTES = 2**31
"""Probabilities of one image that need more memory are not kept."""
_IMAGES_PER_PASS = {"cpu": 1, "cuda": 8}


def predict(
    model: Segmenter,
    images: Tensor | Iterable[ImageLike],
    labels: Tensor | Sequence[Any] | None = None,
    *,
    scales: Sequence[float] = _DEFAULTS.scales,
    flip: bool = _DEFAULTS.flip,
    crf: str | None = _DEFAULTS.crf,
    batch_size: int | None = None,
    amp: bool = False,
) -> list[SegmentResult]:
    """Segment images of any sizes.

    Logits of all scales and mirror images are averaged before the softmax. Images of more than two million pixels are
    predicted in overlapping windows of 768x768 pixels. The mode of the model is restored afterwards, also after an
    error.

    Args:
        model: a network of :func:`create_segmenter` or :func:`load`, on any device.
        images: a tensor (B,3,H,W), or a list of tensors (3,H,W), PIL images and paths. Tensors are taken to be
            normalised; other images are normalised as `model.data_config` says.
        labels: the classes of each image, where its tags are known: class indices 0..K-1 per image, or a 0/1 tensor
            (B,K). Pixels get no other class. None allows all classes.
        scales: factors of the image's size.
        flip: also predict the mirror image at each scale.
        crf: a preset of `ppl.refine.crf` to refine the probabilities with, such as "deeplab"; None for no CRF.
        batch_size: images of one size per forward pass; None takes 1 on a CPU and 8 on a GPU.
        amp: mixed precision where the device has it.

    Returns:
        One :class:`SegmentResult` per image, in order, on the CPU.

    Raises:
        PPLTypeError: if the model, an image or a label is of another type.
        PPLValueError: if a setting is out of range, an image cannot be read, the number of label rows differs from the
            number of images, or a CRF is asked for an image that is predicted in windows and too large for memory.
        PPLFileNotFoundError: if the file of an image does not exist.

    Source:
        Averaging logits over scales and mirror images: the usual test protocol of DeepLab and SEAM.

    Example:
        >>> import torch
        >>> from ppl.segment import create_segmenter
        >>> model = create_segmenter("test_resnet", 2, decoder="fpn", pretrained=False)
        >>> result = predict(model, [torch.randn(3, 40, 60)], labels=[[1]])[0]
        >>> tuple(result.probs.shape), bool((result.mask != 1).all())
        ((3, 40, 60), True)
    """
    return list(iter_predict(model, images, labels, scales=scales, flip=flip, crf=crf, batch_size=batch_size, amp=amp))


def iter_predict(
    model: Segmenter,
    images: Tensor | Iterable[ImageLike],
    labels: Tensor | Sequence[Any] | None = None,
    *,
    scales: Sequence[float] = _DEFAULTS.scales,
    flip: bool = _DEFAULTS.flip,
    crf: str | None = _DEFAULTS.crf,
    batch_size: int | None = None,
    amp: bool = False,
    probs: bool = True,
) -> Iterator[SegmentResult]:
    """Segment images as a stream: see :func:`predict` for the other arguments and for errors.

    Threads read a few images ahead, and memory does not grow with the number of images. Without `probs` the results are
    masks alone, in less time and memory; a CRF needs the probabilities all the same.

    Yields:
        One :class:`SegmentResult` per image, in order.

    Example:
        >>> import torch
        >>> from ppl.segment import create_segmenter
        >>> model = create_segmenter("test_resnet", 2, decoder="fpn", pretrained=False)
        >>> [result.size for result in iter_predict(model, torch.randn(2, 3, 32, 48))]
        [(32, 48), (32, 48)]
    """
    if not isinstance(model, Segmenter):
        raise PPLTypeError(
            f"model must come from ppl.segment, got {type(model).__name__}: use create_segmenter or load"
        )
    check_images(images)
    device = next(model.parameters()).device
    if batch_size is None:
        batch_size = _IMAGES_PER_PASS.get(device.type, 1)
    settings = _Settings(
        tuple(float(scale) for scale in scales), flip, crf, batch_size, amp, probs or crf is not None, device
    )
    rows = None if labels is None else check_labels(labels, model.num_classes, model.classes)
    return _stream(model, as_images(images), rows, settings)


@dataclass(frozen=True)
class _Settings:
    scales: tuple[float, ...]
    flip: bool
    crf: str | None
    batch_size: int
    amp: bool
    probs: bool
    device: torch.device

    def __post_init__(self) -> None:
        if not self.scales or not all(0 < scale < float("inf") for scale in self.scales):
            raise PPLValueError(f"scales must be one or more numbers above 0, got {self.scales}")
        if self.batch_size < 1:
            raise PPLValueError(f"batch_size must be at least 1, got {self.batch_size}")


def _stream(
    model: Segmenter, images: Iterable[Any], rows: list[Tensor] | None, settings: _Settings
) -> Iterator[SegmentResult]:
    waiting: list[Tensor] = []
    done = 0
    for image in read_ahead(images, model.data_config, to_pixels):
        if waiting and (waiting[0].shape != image.shape or len(waiting) == settings.batch_size):
            yield from _predict_batch(model, waiting, _rows_of(rows, done, len(waiting)), settings)
            done += len(waiting)
            waiting = []
        waiting.append(image)
    if waiting:
        yield from _predict_batch(model, waiting, _rows_of(rows, done, len(waiting)), settings)
        done += len(waiting)
    if rows is not None:
        check_count(done, len(rows))


def _rows_of(rows: list[Tensor] | None, start: int, count: int) -> list[Tensor] | None:
    if rows is None:
        return None
    if start + count > len(rows):
        check_count(start + count, len(rows))
    return rows[start : start + count]


def _predict_batch(
    model: Segmenter, images: list[Tensor], rows: list[Tensor] | None, settings: _Settings
) -> list[SegmentResult]:
    height, width = images[0].shape[-2:]
    if height * width > _WHOLE_PIXELS:
        return [
            _predict_windows(model, image, None if rows is None else rows[index], settings)
            for index, image in enumerate(images)
        ]
    results = []
    with _ready(model, settings):
        batch = torch.stack([normalized(image.to(settings.device), model.data_config) for image in images])
        logits = averaged_logits(model, batch, settings.scales, settings.flip)
        for index, image in enumerate(images):
            allowed = _allow(logits[index], None if rows is None else rows[index])
            probs = allowed.softmax(dim=0).cpu() if settings.probs else None
            results.append((_best(allowed).cpu(), probs, image))
    # outside of inference mode, with memory of their own
    return [
        _result(mask.clone(), None if probs is None else probs.clone(), image, model, settings)
        for mask, probs, image in results
    ]


@contextmanager
def _ready(model: Segmenter, settings: _Settings) -> Iterator[None]:
    half = half_precision(settings.device) if settings.amp else None
    autocast = nullcontext() if half is None else torch.autocast(settings.device.type, dtype=half)
    with in_eval_mode(model), torch.inference_mode(), autocast:
        yield


def _predict_windows(model: Segmenter, image: Tensor, row: Tensor | None, settings: _Settings) -> SegmentResult:
    """Predict an image in windows, of which one at a time is on the device."""
    height, width = image.shape[-2:]
    keep = settings.probs and (model.num_classes + 1) * height * width * 4 <= _KEPT_BYTES
    if settings.crf is not None and not keep:
        raise PPLValueError(
            f"crf={settings.crf!r} needs all probabilities of an image in memory, and {height}x{width} pixels have too "
            "many: predict smaller parts, or without a CRF"
        )

    def logits_of(window: Tensor) -> Tensor:
        pixels = normalized(window.to(settings.device), model.data_config)
        return averaged_logits(model, pixels, settings.scales, settings.flip)

    mask = torch.empty(height, width, dtype=torch.uint8)
    probs = torch.empty(model.num_classes + 1, height, width) if keep else None
    with _ready(model, settings):
        for (rows, columns), logits in predicted_windows(logits_of, image, _WINDOW, _STEP):
            allowed = _allow(logits, row)
            mask[rows, columns] = _best(allowed)
            if probs is not None:
                probs[:, rows, columns] = allowed.softmax(dim=0)
    return _result(mask, probs, image, model, settings)


def _allow(logits: Tensor, row: Tensor | None) -> Tensor:
    """Give no chance to classes that are not among the tags of the image. The background always has one."""
    if row is None:
        return logits
    forbidden = torch.ones(len(logits), dtype=torch.bool, device=logits.device)
    forbidden[0] = False
    forbidden[row.to(logits.device) + 1] = False
    return logits.masked_fill(forbidden[:, None, None], float("-inf"))


def _result(mask: Tensor, probs: Tensor | None, image: Tensor, model: Segmenter, settings: _Settings) -> SegmentResult:
    if probs is not None and settings.crf is not None:
        probs = torch.from_numpy(dense_crf(_colours(image, model.data_config), probs.numpy(), preset=settings.crf))
        mask = _best(probs)
    return SegmentResult(mask, probs)


def _best(scores: Tensor) -> Tensor:
    """Return the best label of each pixel; on a CPU `max` takes half the time of `argmax`."""
    return scores.max(dim=0).indices.to(torch.uint8)


def _colours(image: Tensor, data_config: dict[str, Any]) -> Any:
    """Return the colours (H,W,3) uint8 of an image."""
    if image.dtype != torch.uint8:
        mean, std = (torch.tensor(data_config[key])[:, None, None] for key in ("mean", "std"))
        image = ((image.float().cpu() * std + mean) * 255).round().clamp(0, 255).to(torch.uint8)
    return np.ascontiguousarray(image.permute(1, 2, 0).numpy())
