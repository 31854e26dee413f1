"""Maps of many images: scales, mirroring, batches of equal size, one result per image."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence, Sized
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ppl.cam.compute import compute_batch, scaled_size
from ppl.cam.images import ImageLike, check_images, to_tensor
from ppl.cam.labels import check_labels
from ppl.cam.reader import ClassMapReader, make_reader
from ppl.cam.result import CamResult
from ppl.cam.settings import MapSize, Settings, make_settings
from ppl.errors import PPLValueError

__all__ = ["check_maps", "generate", "iter_generate"]

# Images that wait for others of their size: at most this many batches, and this many pixels.
_WINDOW_BATCHES = 4
_WINDOW_PIXELS = 2**24
# Threads that decode, and so many pictures are decoded ahead of their turn.
_READERS = 4


def generate(
    model: nn.Module,
    images: Tensor | Iterable[ImageLike],
    labels: Tensor | Sequence[Any] | None = None,
    *,
    scales: Sequence[float] = (1.0, 0.5, 1.5, 2.0),
    flip: bool = True,
    method: str = "cam",
    normalize: Literal["max", "none"] = "max",
    size: MapSize = "image",
    batch_size: int | None = None,
    amp: bool = False,
    device: torch.device | str = "cpu",
) -> list[CamResult]:
    """Compute the class activation maps of images.

    Every image goes through the model at every scale, and mirrored too. The activations of all its classes are resized
    (bilinear, align_corners=False, in float32), summed over scales and mirror images, and divided by their spatial
    maximum (plus 1e-5). No gradient is kept. The model's mode, hooks and gradients are afterwards as they were,
    also after an error.

    Args:
        model: a :class:`ppl.PPLNet`, or a timm classifier whose head is average pooling and one linear layer.
        images: a tensor (B,3,H,W), or a list of tensors (3,H,W), PIL images and paths, of any sizes. Tensors are taken
            to be normalised, the others are normalised as the model's own configuration says. Scale 1.0 leaves the
            pixels as they are; the other scales are bilinear.
        labels: per image a list of class indices 0..K-1, or one 0/1 tensor (B,K). None takes the classes that the
            model predicts: those of probability (sigmoid) above 0.5, or the best one where there is none.
        scales: factors of the image's size. The published ones by default.
        flip: also take each scale mirrored.
        method: name of the activation, one of `ppl.cam.METHODS`: "cam" reads the class maps of all branches together,
            "whole" those of the un-patched branch alone, in a single pass, "layercam" sharpens the latter by LayerCAM
            of the stage before the last.
        normalize: "max", or "none" for the plain sum, which is not in [0,1].
        size: of the maps: "image" for each image's own, "feature" for that of the model's map at the scale nearest to
            1, or (h,w).
        batch_size: images per forward pass (their mirror images come on top). None takes as many as fit a pass of
            1 million pixels (16 million on CUDA), at the largest scale.
        amp: mixed precision: bfloat16 where the device has it, float16 on older GPUs; a CPU without bfloat16 stays with
            float32, and a warning says so.
        device: where the results' tensors are.

    Returns:
        One :class:`CamResult` per image, in order. Its scores are those of the image at the scale nearest to 1.

    Raises:
        PPLTypeError: if model, images or labels are of a type that is not understood.
        PPLValueError: if the number of label rows is not that of the images, a class index is out of range, a setting
            is unknown, a tensor has another shape, a file is no image, the model has no class maps, or it was built for
            one image size and a scale asks for another.
        PPLFileNotFoundError: if an image's file does not exist.

    Source:
        Multi-scale CAM as in IRN (Ahn et al., CVPR 2019), without its reading and writing of files.

    Example:
        >>> import ppl, torch
        >>> model = ppl.create_model("test_resnet", 5, cuts=["layer3"], pretrained=False)
        >>> images = [torch.randn(3, 64, 96), torch.randn(3, 50, 70)]
        >>> results = generate(model, images, labels=[[0, 3], [2]], scales=(1.0, 0.5))
        >>> [tuple(result.maps.shape) for result in results]
        [(2, 64, 96), (1, 50, 70)]
    """
    return list(
        iter_generate(
            model,
            images,
            labels,
            scales=scales,
            flip=flip,
            method=method,
            normalize=normalize,
            size=size,
            batch_size=batch_size,
            amp=amp,
            device=device,
        )
    )


def iter_generate(
    model: nn.Module,
    images: Tensor | Iterable[ImageLike],
    labels: Tensor | Sequence[Any] | None = None,
    *,
    scales: Sequence[float] = (1.0, 0.5, 1.5, 2.0),
    flip: bool = True,
    method: str = "cam",
    normalize: Literal["max", "none"] = "max",
    size: MapSize = "image",
    batch_size: int | None = None,
    amp: bool = False,
    device: torch.device | str = "cpu",
) -> Iterator[CamResult]:
    """:func:`generate` as a stream: results come in order while most later images are not read yet.

    Memory does not grow with the number of images; a few pictures are decoded by threads while the model is busy.
    Between two results the model is as it was, so it may be used.

    Args and Raises are those of :func:`generate`; settings, and labels where the number of images is known, are
    checked at once.

    Returns:
        An iterator of one :class:`CamResult` per image, in order.

    Example:
        >>> import ppl, torch
        >>> model = ppl.create_model("test_resnet", 5, cuts=["layer3"], pretrained=False)
        >>> for result in iter_generate(model, torch.randn(2, 3, 64, 64), [[1], [4]], scales=[1.0]):
        ...     print(result.classes.tolist(), tuple(result.maps.shape))
        [1] (1, 64, 64)
        [4] (1, 64, 64)
    """
    reader = make_reader(model)
    settings = make_settings(scales, flip, method, normalize, size, batch_size, amp, device)
    reader.check_method(settings.method)
    check_images(images)
    rows = None if labels is None else check_labels(labels, reader.num_classes)
    if rows is not None and isinstance(images, Sized):
        _check_count(len(images), len(rows))
    return _stream(model, reader, images, rows, settings)


def check_maps(
    model: nn.Module, sizes: Iterable[tuple[int, int]], *, scales: Sequence[float] = (1.0,), method: str = "cam"
) -> None:
    """Find out whether :func:`generate` will be able to do its work, before there are images or trained weights.

    Args:
        model: as for :func:`generate`.
        sizes: (height, width) of images.
        scales: as for :func:`generate`.
        method: as for :func:`generate`.

    Raises:
        PPLTypeError: if the model is of a kind that is not understood.
        PPLValueError: if it does not have what the method reads, or does not take images of a size at a scale.

    Example:
        >>> import ppl
        >>> model = ppl.create_model("test_vit_relpos", 5, mode="baseline", pretrained=False)
        >>> check_maps(model, [(160, 160)])
        >>> check_maps(model, [(96, 128)])  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ppl.backbones.errors.UnsupportedBackboneError: ...
    """
    reader = make_reader(model)
    reader.check_method(method)
    for size in sizes:
        for scale in scales:
            reader.check_size(*reader.padded(*scaled_size(size, scale)))


def _stream(
    model: nn.Module, reader: ClassMapReader, images: Iterable[Any], rows: list[Tensor] | None, settings: Settings
) -> Iterator[CamResult]:
    """Results of all images, in order."""
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    done = 0
    for window in _windows(images, reader, settings, device):
        end = done + len(window)
        if rows is not None and end > len(rows):
            _check_count(end, len(rows))
        yield from _compute(model, reader, window, None if rows is None else rows[done:end], settings, device)
        done = end
    if rows is not None:
        _check_count(done, len(rows))


def _windows(
    images: Iterable[Any], reader: ClassMapReader, settings: Settings, device: torch.device
) -> Iterator[list[Tensor]]:
    """Read images until there are enough of them to form batches of equal sizes."""
    window: list[Tensor] = []
    pixels = 0
    for image in _tensors(images, reader.data_config):
        window.append(image)
        height, width = window[-1].shape[1:]
        pixels += height * width
        per_pass = settings.images_per_pass(height, width, device)
        if len(window) >= _WINDOW_BATCHES * per_pass or (pixels >= _WINDOW_PIXELS and len(window) >= per_pass):
            yield window
            window, pixels = [], 0
    if window:
        yield window


def _tensors(images: Iterable[Any], data_config: dict[str, Any]) -> Iterator[Tensor]:
    """The images as tensors; a few pictures and files are decoded ahead of their turn."""
    with ThreadPoolExecutor(_READERS) as readers:
        ahead: deque[Future[Tensor]] = deque()
        for number, image in enumerate(images):
            ahead.append(readers.submit(to_tensor, image, data_config, number))
            while len(ahead) > (0 if isinstance(image, Tensor) else _READERS):
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()


def _compute(
    model: nn.Module,
    reader: ClassMapReader,
    images: list[Tensor],
    rows: list[Tensor] | None,
    settings: Settings,
    device: torch.device,
) -> list[CamResult]:
    """Results of a window of images, batch by batch of equal sizes."""
    groups: dict[torch.Size, list[int]] = {}
    for number, image in enumerate(images):
        groups.setdefault(image.shape, []).append(number)
    results: dict[int, CamResult] = {}
    for shape, members in groups.items():
        step = settings.images_per_pass(shape[1], shape[2], device)
        for start in range(0, len(members), step):
            batch = members[start : start + step]
            own_rows = None if rows is None else [rows[number] for number in batch]
            found = compute_batch(model, reader, [images[number] for number in batch], own_rows, settings)
            results.update(zip(batch, found, strict=True))
    return [results[number] for number in range(len(images))]


def _check_count(images: int, rows: int) -> None:
    if images != rows:
        raise PPLValueError(f"labels must hold one row per image: {images} images, but {rows} rows")
