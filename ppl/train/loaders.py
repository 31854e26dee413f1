"""The batches of a training, made from its settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch.utils.data import DataLoader

from ppl.data import eval_loader, eval_transform, train_loader, train_transform
from ppl.data.pairs import TrainingImages
from ppl.engine import EpochBatches
from ppl.engine.batches import ALONE, Share, loader_workers, share_of_process
from ppl.train.config import TrainConfig

__all__ = ["train_batches", "val_batches"]


def train_batches(
    dataset: TrainingImages,
    config: TrainConfig,
    data_config: Mapping[str, Any],
    share: Share = ALONE,
) -> EpochBatches:
    """Return shuffled, augmented batches of the training images.

    Raises:
        PPLValueError: if the images do not fill one batch per process.
    """
    share.check(len(dataset), config.batch_size)
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
        num_workers=loader_workers(config.num_workers, share.processes),
        seed=config.seed,
        pin_memory=share.pin_memory,
    )
    return EpochBatches(loader, share.processes, share.process)


def val_batches(
    dataset: TrainingImages,
    config: TrainConfig,
    data_config: Mapping[str, Any],
    share: Share = ALONE,
) -> DataLoader[Any]:
    """Return whole validation images in their order.

    With several processes some images may come twice; `Batch.indices` tells them.
    """
    transform = eval_transform(config.size, data_config["mean"], data_config["std"])
    workers = loader_workers(config.num_workers, share.processes)
    loader = eval_loader(dataset, transform, config.batch_size, num_workers=workers, pin_memory=share.pin_memory)
    return share_of_process(loader, share.processes, share.process)
