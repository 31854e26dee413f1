"""Load batches of tagged images, reproducibly for a seed and an epoch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from ppl.data.pairs import TrainingImages
from ppl.errors import PPLValueError

__all__ = ["Batch", "EpochSampler", "TrainLoader", "eval_loader", "image_seed", "train_loader", "use_one_thread"]

Transform = Callable[[Image.Image], Tensor]


class Batch(NamedTuple):
    """One batch of a loader.

    Attributes:
        images: (B, 3, H, W) float32, normalised.
        targets: (B, K) float32 of zeros and ones.
        indices: (B,) int64, positions of the images in the data set.
    """

    images: Tensor
    targets: Tensor
    indices: Tensor


class EpochSampler(Sampler[list[tuple[int, int]]]):
    """Batches of (epoch, index) in an order that only the seed and the epoch decide.

    Args:
        length: number of samples.
        batch_size: samples per batch.
        seed: seed of the order.
        drop_last: leave out the last batch if it is not full.
    """

    def __init__(self, length: int, batch_size: int, *, seed: int = 0, drop_last: bool = True) -> None:
        self.length, self.batch_size, self.seed, self.drop_last = length, batch_size, seed, drop_last
        self.epoch = self.start = 0

    def set_epoch(self, epoch: int, start: int = 0) -> None:
        """Choose the epoch of the next pass, which begins at batch `start`."""
        self.epoch, self.start = epoch, start

    def __len__(self) -> int:
        full, rest = divmod(self.length, self.batch_size)
        return max(0, full + (rest > 0 and not self.drop_last) - self.start)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        epoch, first = self.epoch, self.start
        generator = torch.Generator().manual_seed(image_seed(self.seed, epoch))
        order = torch.randperm(self.length, generator=generator).tolist()
        for batch in range(first, first + len(self)):
            yield [(epoch, index) for index in order[batch * self.batch_size : (batch + 1) * self.batch_size]]


class TrainLoader(DataLoader[Any]):
    """A `DataLoader` of `Batch`es with a choice of epoch and first batch; made by `train_loader`."""

    def set_epoch(self, epoch: int, start: int = 0) -> None:
        """Choose the epoch of the next pass, which begins at batch `start` (to resume within an epoch)."""
        assert isinstance(self.batch_sampler, EpochSampler)
        self.batch_sampler.set_epoch(epoch, start)


def train_loader(
    dataset: TrainingImages,
    transform: Transform,
    batch_size: int,
    *,
    num_workers: int = 0,
    seed: int = 0,
    drop_last: bool = True,
    pin_memory: bool = False,
) -> TrainLoader:
    """Return a loader of shuffled, augmented batches.

    Order and augmentation depend only on (seed, epoch, image), not on the number of workers or on earlier epochs. A
    run that resumes with `set_epoch(epoch, start)` therefore sees the same batches as an uninterrupted run.

    Args:
        dataset: images to train on.
        transform: from a PIL image to a tensor of fixed size; see `train_transform`. It may draw from torch's global
            generator, which is seeded per image and put back afterwards.
        batch_size: images per batch.
        num_workers: processes that decode; 0 decodes in the calling process.
        seed: seed of order and augmentation.
        drop_last: leave out the last batch if it is not full. A data set smaller than one batch keeps its batch.
        pin_memory: use pinned memory, for faster copies to a GPU.

    Returns:
        The loader, at epoch 0; call `set_epoch` before every pass.

    Raises:
        PPLValueError: if the data set is empty or the batch size below 1.
    """
    _check(dataset, batch_size)
    sampler = EpochSampler(len(dataset), batch_size, seed=seed, drop_last=drop_last and len(dataset) >= batch_size)
    return TrainLoader(
        _Images(dataset, transform, seed),
        batch_sampler=sampler,
        num_workers=num_workers,
        pin_memory=pin_memory,
        persistent_workers=num_workers > 0,
        worker_init_fn=use_one_thread,
    )


def eval_loader(
    dataset: TrainingImages, transform: Transform, batch_size: int, *, num_workers: int = 0, pin_memory: bool = False
) -> DataLoader[Any]:
    """Return a loader of all images in their order; the last batch may be short.

    Args:
        dataset: images to evaluate.
        transform: from a PIL image to a tensor of fixed size; see `eval_transform`.
        batch_size: images per batch.
        num_workers: processes that decode; 0 decodes in the calling process.
        pin_memory: use pinned memory, for faster copies to a GPU.

    Returns:
        The loader.

    Raises:
        PPLValueError: if the data set is empty or the batch size below 1.
    """
    _check(dataset, batch_size)
    return DataLoader(
        _Images(dataset, transform, seed=0),
        batch_size=batch_size,
        num_workers=num_workers,
        pin_memory=pin_memory,
        worker_init_fn=use_one_thread,
    )


class _Images(Dataset[Batch]):
    def __init__(self, dataset: TrainingImages, transform: Transform, seed: int) -> None:
        self.dataset, self.transform, self.seed = dataset, transform, seed
        steps = getattr(transform, "transforms", ())
        self.at_least: int | None = getattr(steps[0], "at_least", None) if steps else None

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, key: int | tuple[int, int]) -> Batch:
        epoch, index = key if isinstance(key, tuple) else (0, key)
        generator = torch.default_generator
        before = generator.get_state()
        try:
            generator.manual_seed(image_seed(self.seed, epoch, index))
            sample = self.dataset[index]  # with the seed, since a data set of the user's may augment
            image = sample.read_image(at_least=self.at_least)
            pixels = image if isinstance(image, Tensor) else self.transform(image)
        finally:
            generator.set_state(before)
        target = torch.zeros(len(self.dataset.classes))
        target[list(sample.labels)] = 1.0
        return Batch(pixels, target, torch.tensor(index))


def image_seed(*numbers: int) -> int:
    """Return a 63-bit seed made of several numbers; neighbouring numbers give unrelated seeds."""
    return int(
        np.random.SeedSequence([number & 0xFFFF_FFFF_FFFF_FFFF for number in numbers]).generate_state(1, np.uint64)[0]
        >> np.uint64(1)
    )


def use_one_thread(_: int) -> None:
    """Let a worker process of a loader compute with one thread: the processes share the cores."""
    torch.set_num_threads(1)


def _check(dataset: TrainingImages, batch_size: int) -> None:
    if not len(dataset):
        raise PPLValueError(f"{dataset.name} holds no images; check the split")
    if batch_size < 1:
        raise PPLValueError(f"batch_size is {batch_size}; it must be at least 1")
