"""The batches of a run, from its settings; each process of several gets its share."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import joblib
import torch
from torch.utils.data import DataLoader

from ppl.data import Batch, TaggedImages, eval_loader, eval_transform, train_loader, train_transform
from ppl.errors import PPLValueError
from ppl.train.config import TrainConfig

__all__ = ["TrainBatches", "val_batches"]


class TrainBatches:
    """Shuffled, augmented batches of the training images, of any epoch and from any batch on.

    Args:
        dataset: the images.
        config: crop size, augmentation, batch size, seed.
        data_config: the model's `mean` and `std`.
        processes: number of processes and index of this one.
        pin_memory: for faster copies to a GPU.

    Raises:
        PPLValueError: if there are fewer images than one batch per process.
    """

    def __init__(
        self,
        dataset: TaggedImages,
        config: TrainConfig,
        data_config: Mapping[str, Any],
        *,
        processes: tuple[int, int] = (1, 0),
        pin_memory: bool = False,
    ) -> None:
        if processes[0] > 1 and len(dataset) < processes[0] * config.batch_size:
            raise PPLValueError(
                f"{len(dataset)} images do not fill a batch of {config.batch_size} for each of {processes[0]} "
                "processes; lower batch_size or use fewer processes"
            )
        strength = config.jitter
        transform = train_transform(
            config.size,
            data_config["mean"],
            data_config["std"],
            resize_long=config.resize_long,
            hflip=0.5 if config.hflip else 0.0,
            jitter=(strength, strength, strength, strength / 3) if strength else None,
        )
        loader = train_loader(
            dataset,
            transform,
            config.batch_size,
            num_workers=_workers(config.num_workers, processes[0]),
            seed=config.seed,
            pin_memory=pin_memory,
        )
        self._set_epoch: Callable[[int, int], None] = loader.set_epoch
        self._processes, _ = processes
        self._loader = loader if self._processes == 1 else _shard(loader, *processes)
        self._length = len(self._loader)

    def __len__(self) -> int:
        """Batches in an epoch, for this process."""
        return self._length

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """The batches of one epoch from batch `start` on."""
        self._set_epoch(epoch, start * self._processes)
        # a loader draws a seed that nothing here uses; a resumed epoch must not be one draw ahead
        with torch.random.fork_rng(devices=[]):
            return iter(self._loader)


def val_batches(
    dataset: TaggedImages,
    config: TrainConfig,
    data_config: Mapping[str, Any],
    *,
    processes: tuple[int, int] = (1, 0),
    pin_memory: bool = False,
) -> DataLoader[Any]:
    """Whole validation images in their order; with several processes some may come twice, told by `Batch.indices`."""
    transform = eval_transform(config.eval_size or config.size, data_config["mean"], data_config["std"])
    workers = _workers(config.num_workers, processes[0])
    loader = eval_loader(dataset, transform, config.batch_size, num_workers=workers, pin_memory=pin_memory)
    return loader if processes[0] == 1 else _shard(loader, *processes)


def _workers(wanted: int | None, processes: int) -> int:
    """So many as are asked for, or this process's share of the cores, at most 8."""
    return min(8, max(1, joblib.cpu_count() // processes)) if wanted is None else wanted


def _shard(loader: DataLoader[Any], count: int, index: int) -> DataLoader[Any]:
    """Every `count`-th batch of a loader, decoded by this process alone."""
    from accelerate.data_loader import BatchSamplerShard

    return DataLoader(
        loader.dataset,
        batch_sampler=BatchSamplerShard(loader.batch_sampler, count, index),
        num_workers=loader.num_workers,
        pin_memory=loader.pin_memory,
        persistent_workers=loader.persistent_workers,
        worker_init_fn=loader.worker_init_fn,
    )
