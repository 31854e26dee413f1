"""Class activation maps of many images: the functions to call."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable, Iterator, Sequence
from numbers import Real
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ppl.backbones.dummy import make_dummy
from ppl.cam.config import CamConfig, MapSize
from ppl.cam.eval_mode import in_eval_mode
from ppl.cam.finite import check_weights
from ppl.cam.images import ImageLike, as_images, check_images, check_order, count_images
from ppl.cam.job import Job
from ppl.cam.labels import check_labels
from ppl.cam.make_classifier import make_classifier
from ppl.cam.methods import METHODS
from ppl.cam.result import CamResult
from ppl.cam.sizes import scaled_size
from ppl.cam.stream import check_count, stream_results
from ppl.errors import PPLTypeError, PPLValueError

__all__ = ["check_maps", "generate", "iter_generate"]

_DEFAULTS = CamConfig()


def generate(
    model: nn.Module,
    images: Tensor | Iterable[ImageLike],
    labels: Tensor | Sequence[Any] | None = None,
    *,
    scales: Sequence[float] = _DEFAULTS.scales,
    flip: bool = _DEFAULTS.flip,
    method: str = _DEFAULTS.method,
    branch: Literal["unpatched", "all"] = _DEFAULTS.branch,
    layer: str | nn.Module | None = _DEFAULTS.layer,
    normalize: Literal["max", "none"] = _DEFAULTS.normalize,
    size: MapSize = _DEFAULTS.size,
    batch_size: int | None = _DEFAULTS.batch_size,
    amp: bool = _DEFAULTS.amp,
    multi_label: bool | None = _DEFAULTS.multi_label,
    device: torch.device | str = "cpu",
) -> list[CamResult]:
    """Compute the class activation maps of images with any trained classifier.

    Every image goes through the model at every scale, plain and mirrored. The maps of all its classes are resized
    (bilinear, align_corners=False, in float32), summed over scales and mirror images, and divided by their spatial
    maximum (plus 1e-5). The model's mode, hooks and gradients are afterwards as they were, also after an error. Several
    threads may use one model at the same time.

    Args:
        model: a :class:`ppl.PPLNet`, or any module that takes images and returns logits (B,K), an object or mapping
            with `logits`, or a tuple that begins with the logits: of timm, torchvision, transformers or your own.
            Compiled and parallel modules are unwrapped.
        images: a normalised tensor (B,3,H,W), or a list of tensors (3,H,W), PIL images, uint8 arrays (H,W,3) in RGB
            order and paths, of any sizes; or a torch `Dataset` of images or of pairs (image, target), or a `DataLoader`
            of their batches, whose targets are not read. Pictures are normalised as the model's own configuration says,
            else with ImageNet's mean and standard deviation. Scale 1.0 leaves the pixels as they are; the other scales
            are bilinear.
        labels: per image a list of class indices 0..K-1 or of class names, or one string "cat;cow"; or one 0/1 tensor
            (B,K). Names need a model that knows its classes (`model.classes`). None takes the classes that the model
            predicts, see `multi_label`.
        scales: factors of the image's size.
        flip: also take each scale mirrored.
        method: a name in `ppl.cam.METHODS`. "auto" reads the class activation map ("cam") where it is exact: for a
            `PPLNet`, and for a head of global pooling and one linear layer. Elsewhere, and with a `layer`, "auto" is
            "hirescam", whose gradients go through the head alone. "gradcam", "gradcam++", "hirescam" and "layercam"
            read any `layer`. "sharpened_cam" multiplies the class activation map by LayerCAM of a finer layer;
            "propagated_cam" averages that over cells with similar features (:func:`ppl.cam.propagate`).
            "attention_rollout" follows the attention of a vision transformer, weighted by its gradients.
        branch: maps of a `PPLNet`: "unpatched" reads that branch alone, in one pass; "all" adds all branches, as the
            figures of the paper draw the classifier. Other models have no branches.
        layer: the layer that a gradient method reads, by name or as a module; None takes the last layer with a map that
            the logits depend on ("sharpened_cam" and "propagated_cam": the last of the stage before the last).
        normalize: "max", or "none" for the plain sum, which is not in [0,1].
        size: size of the maps: "image" for each image's own, "feature" for that of the model's map at the scale nearest
            to 1, or (h,w).
        batch_size: images per forward pass (their mirror images come on top). None takes as many as fit a pass of
            1 million pixels (16 million on CUDA), at the largest scale.
        amp: mixed precision: bfloat16 where the device has it, float16 on older GPUs; a CPU without bfloat16 stays with
            float32, and a warning says so.
        multi_label: without labels, True takes the classes of probability (sigmoid) above 0.5, or the best one if there
            is none; False takes the best class alone. None is True for a `PPLNet` and False for other classifiers.
        device: device of the results' tensors.

    Returns:
        One :class:`CamResult` per image, in order. Its scores are the sigmoids of the logits at the scale nearest to 1;
        the logits of the un-patched branch are those of all branches' classifiers on the un-patched map.

    Raises:
        PPLTypeError: if model, images or labels are of a type that is not understood.
        PPLValueError: if the number of label rows is not that of the images, a class is unknown, a setting is unknown
            or out of range, a tensor has another shape, a file is no image, weights or pixels hold NaN, the model lacks
            what the method reads, or it was built for one image size and a scale asks for another.
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
            branch=branch,
            layer=layer,
            normalize=normalize,
            size=size,
            batch_size=batch_size,
            amp=amp,
            multi_label=multi_label,
            device=device,
        )
    )


def iter_generate(
    model: nn.Module,
    images: Tensor | Iterable[ImageLike],
    labels: Tensor | Sequence[Any] | None = None,
    *,
    scales: Sequence[float] = _DEFAULTS.scales,
    flip: bool = _DEFAULTS.flip,
    method: str = _DEFAULTS.method,
    branch: Literal["unpatched", "all"] = _DEFAULTS.branch,
    layer: str | nn.Module | None = _DEFAULTS.layer,
    normalize: Literal["max", "none"] = _DEFAULTS.normalize,
    size: MapSize = _DEFAULTS.size,
    batch_size: int | None = _DEFAULTS.batch_size,
    amp: bool = _DEFAULTS.amp,
    multi_label: bool | None = _DEFAULTS.multi_label,
    device: torch.device | str = "cpu",
) -> Iterator[CamResult]:
    """Compute class activation maps as a stream: :func:`generate`, one result after the other.

    Memory does not grow with the number of images; a few pictures are decoded by threads while the model is busy.
    Between two results the model is as it was, so it may be used.

    Args and Raises are those of :func:`generate`; settings, weights, and labels where the number of images is known,
    are checked at once.

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
    config = CamConfig.checked(
        scales=_numbers(scales),
        flip=flip,
        method=method,
        branch=branch,
        normalize=normalize,
        size=tuple(_whole("size", side) for side in size) if isinstance(size, (tuple, list)) else size,
        batch_size=None if batch_size is None else _whole("batch_size", batch_size),
        amp=amp,
        multi_label=multi_label,
    )
    where = _device(device)
    classifier = make_classifier(model, branch=config.branch, layer=layer)
    check_weights(classifier.model)
    classifier.check_method(config.method)
    check_images(images)
    num_classes = classifier.num_classes
    rows = None if labels is None else check_labels(labels, num_classes, classifier.classes)
    count = count_images(images)
    if rows is not None:
        check_order(images)
        if count is not None:
            check_count(count, len(rows))
    return stream_results(Job(classifier, config, where), as_images(images), rows)


def check_maps(
    model: nn.Module,
    sizes: Iterable[tuple[int, int]],
    *,
    scales: Sequence[float] = (1.0,),
    method: str = _DEFAULTS.method,
    branch: Literal["unpatched", "all"] = _DEFAULTS.branch,
    layer: str | nn.Module | None = _DEFAULTS.layer,
) -> None:
    """Find out whether :func:`generate` will be able to do its work, before there are images or trained weights.

    Args:
        model: as for :func:`generate`.
        sizes: (height, width) of images.
        scales: as for :func:`generate`; by default the images' own size alone.
        method: as for :func:`generate`.
        branch: as for :func:`generate`.
        layer: as for :func:`generate`.

    Raises:
        PPLTypeError: if the model is of a kind that is not understood.
        PPLValueError: if the model lacks a layer or class maps that the method reads, does not take images of a size at
            a scale, or has NaN in its weights. The errors of a method of your own pass.

    Example:
        >>> import ppl
        >>> model = ppl.create_model("levit_128s", 5, mode="baseline", pretrained=False)
        >>> check_maps(model, [(224, 224)])
        >>> check_maps(model, [(96, 128)])  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ppl.backbones.errors.UnsupportedBackboneError: ...
    """
    classifier = make_classifier(model, branch=branch, layer=layer)
    check_weights(classifier.model)
    CamConfig.checked(method=method)
    classifier.check_method(method)
    padded = [classifier.sizes.padded(scaled_size(size, scale)) for size in sizes for scale in scales]
    for size in padded:
        classifier.sizes.check_size(size)
    if padded:  # only a pass shows whether a method of a plugin, or one that reads attention, understands the model
        with in_eval_mode(classifier.model), torch.inference_mode():
            METHODS[method](classifier, make_dummy(classifier.model, min(padded, key=math.prod)))


def _numbers(scales: Any) -> tuple[float, ...]:
    scales = scales if isinstance(scales, (Real, str)) else tuple(scales)
    if isinstance(scales, (Real, str)) or not all(isinstance(scale, Real) for scale in scales):
        raise PPLTypeError(f"scales must be a sequence of numbers, got {scales!r}: write scales=(1.0,) for one scale")
    return tuple(map(float, scales))


def _whole(name: str, value: Any) -> int:
    try:
        return operator.index(value)
    except TypeError:
        raise PPLTypeError(f"{name} must be whole numbers, got {value!r}") from None


def _device(device: Any) -> torch.device:
    try:
        return torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise PPLValueError(f"device must be one that torch knows, got {device!r}: {error}") from None
