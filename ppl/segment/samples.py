"""Training crops of images with masks."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.transforms import v2

from ppl.data import TaggedImages
from ppl.data.loader import EpochSampler, TrainLoader, image_seed, use_one_thread
from ppl.data.views import IGNORED, RandomViews
from ppl.engine import EpochBatches
from ppl.engine.batches import ALONE, Share, loader_workers
from ppl.errors import PPLFileNotFoundError, PPLValueError
from ppl.io.confidence import confidence_file, read_confidence
from ppl.segment.config import SegmentConfig

__all__ = ["SegmentBatch", "train_batches", "with_masks"]


class SegmentBatch(NamedTuple):
    """Crops and their masks.

    Attributes:
        images: (B,3,S,S) float32, normalised.
        masks: (B,S,S) int64, 0 background, 255 ignored.
        weights: (B,S,S) float32: how much each pixel counts, in [0,1].
    """

    images: Tensor
    masks: Tensor
    weights: Tensor


def with_masks(images: TaggedImages, folder: str | os.PathLike[str]) -> TaggedImages:
    """Return the images that have a mask in a folder, with these masks.

    Args:
        images: any data set; its own masks are not used.
        folder: palette PNGs `<image id>.png`, such as `refined/train` of a run folder, or masks drawn by hand.

    Returns:
        The data set of the images that have a file there, in the same order.

    Raises:
        PPLFileNotFoundError: if none of the images has one.

    Example:
        >>> from ppl.data import Sample
        >>> images = TaggedImages(("cat",), (Sample("a", Path("a.jpg"), (0,)),), "cats")
        >>> with_masks(images, "nowhere")
        Traceback (most recent call last):
        ppl.errors.PPLFileNotFoundError: nowhere has no mask of any of the 1 images of cats, such as a.png
    """
    paths = {sample.image_id: Path(folder) / f"{sample.image_id}.png" for sample in images}
    masked = tuple(
        replace(sample, mask=paths[sample.image_id]) for sample in images if paths[sample.image_id].is_file()
    )
    if not masked:
        example = f"{images[0].image_id}.png" if len(images) else "IMAGE.png"
        raise PPLFileNotFoundError(
            f"{os.fspath(folder)} has no mask of any of the {len(images)} images of {images.name}, such as {example}"
        )
    return replace(images, samples=masked)


def train_batches(
    images: TaggedImages,
    config: SegmentConfig,
    data_config: Mapping[str, Any],
    share: Share = ALONE,
) -> EpochBatches:
    """Return shuffled random crops of images with masks.

    Order and crops depend on seed, epoch and image alone.

    Args:
        images: images that all have masks.
        config: crop size, augmentation, batch size, seed.
        data_config: `mean` and `std` of the encoder.
        share: the share of this process.

    Raises:
        PPLValueError: if the images do not fill one batch for each of several processes.
    """
    share.check(len(images), config.batch_size)
    drop_last = len(images) >= config.batch_size
    sampler = EpochSampler(len(images), config.batch_size, seed=config.seed, drop_last=drop_last)
    workers = loader_workers(config.num_workers, share.processes)
    loader = TrainLoader(
        _Crops(images, config, data_config),
        batch_sampler=sampler,
        num_workers=workers,
        pin_memory=share.pin_memory,
        persistent_workers=workers > 0,
        worker_init_fn=use_one_thread,
    )
    return EpochBatches(loader, share.processes, share.process)


class _Crops(Dataset[SegmentBatch]):
    """Random views, with the colours changed at random and normalised."""

    def __init__(self, images: TaggedImages, config: SegmentConfig, data_config: Mapping[str, Any]) -> None:
        self.mean, self.std = (torch.tensor(data_config[key])[:, None, None] for key in ("mean", "std"))
        self.seed = config.seed
        pairs = _Pairs(images, config)
        self.views = RandomViews(pairs, crop=config.crop, scale=config.scale, fill=self.mean, seed=config.seed)
        strength = config.jitter
        self.jitter = v2.ColorJitter(strength, strength, strength, strength / 3) if strength else None

    def __len__(self) -> int:
        return len(self.views)

    def __getitem__(self, key: tuple[int, int]) -> SegmentBatch:
        view, labels = self.views[key]
        if self.jitter is not None:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(image_seed(self.seed, *key))
                view = self.jitter(view)
        weights = labels.div(_CONFIDENCE, rounding_mode="floor") / _CERTAIN
        return SegmentBatch((view - self.mean) / self.std, labels % _CONFIDENCE, weights)


_CONFIDENCE, _CERTAIN = 256, 255
"""Factor of the confidence in the label maps of `_Pairs`, and the highest confidence."""


class _Pairs(Dataset[tuple[npt.NDArray[np.uint8], npt.NDArray[np.int32]]]):
    """The images with their label maps: label plus 256 times its confidence, so that both take the same crop."""

    def __init__(self, images: TaggedImages, config: SegmentConfig) -> None:
        self.images, self.config = images, config

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int32]]:
        sample = self.images[index]
        image, mask = np.array(sample.read_image()), sample.read_mask()
        if mask.shape != image.shape[:2]:
            raise PPLValueError(
                f"the mask of image {sample.image_id!r} is {mask.shape} and the image {image.shape[:2]} (height, "
                "width): masks have the size of their images"
            )
        largest = np.flatnonzero(np.bincount(mask.ravel(), minlength=256)[:IGNORED])[-1:]
        if largest.size and largest[0] > len(self.images.classes):
            raise PPLValueError(
                f"the mask of image {sample.image_id!r} holds index {largest[0]}, but there are "
                f"{len(self.images.classes)} classes: write class indices from 1, 0 for the background, 255 to ignore"
            )
        labels = mask.astype(np.int32)
        if not self.config.reads_confidence:
            return image, labels + _CERTAIN * _CONFIDENCE
        assert isinstance(sample.mask, Path)
        confidence = read_confidence(sample.mask).astype(np.int32)
        if confidence.shape != mask.shape:
            raise PPLValueError(f"{confidence_file(sample.mask)} is {confidence.shape}, and its mask is {mask.shape}")
        labels[confidence < self.config.min_confidence * _CERTAIN] = IGNORED
        return image, labels + _CONFIDENCE * (confidence if self.config.confidence else _CERTAIN)
