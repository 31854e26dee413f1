"""Batches of any epoch, from any batch on, shared among processes."""

from __future__ import annotations

import multiprocessing
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import joblib
import torch
from torch.utils.data import DataLoader

from ppl.errors import PPLValueError

__all__ = ["ALONE", "EpochBatches", "Share", "loader_workers", "share_of_process", "unguarded_script"]


class Share(NamedTuple):
    """The share of the batches that one process trains on.

    Attributes:
        processes: the number of training processes.
        process: the index of this process.
        pin_memory: make copies to a GPU faster.
    """

    processes: int = 1
    process: int = 0
    pin_memory: bool = False

    @classmethod
    def of(cls, accelerator: Any) -> Share:
        """Return the share of this process."""
        return cls(accelerator.num_processes, accelerator.process_index, accelerator.device.type == "cuda")

    def check(self, images: int, batch_size: int) -> None:
        """Raise PPLValueError unless the images fill one batch for each of several processes."""
        if self.processes > 1 and images < self.processes * batch_size:
            raise PPLValueError(
                f"{images} images do not fill a batch of {batch_size} for each of {self.processes} processes: lower "
                "batch_size or use fewer processes"
            )


ALONE = Share()
"""The share of a process without others."""


class EpochBatches:
    """The training batches of one process, in the order that seed and epoch decide.

    Args:
        loader: yields the batches of all processes. A `set_epoch(epoch, start)` method, if there is one, chooses the
            epoch and the first batch of the next pass; without it, a resumed epoch skips the batches before.
        num_processes: the number of processes.
        process_index: the index of this process.

    Example:
        >>> batches = EpochBatches(DataLoader(range(6), batch_size=2))
        >>> len(batches), [batch.tolist() for batch in batches.epoch(0, start=1)]
        (3, [[2, 3], [4, 5]])
    """

    def __init__(self, loader: DataLoader[Any], num_processes: int = 1, process_index: int = 0) -> None:
        self._set_epoch = getattr(loader, "set_epoch", None)
        self._num_processes = num_processes
        self._loader = share_of_process(loader, num_processes, process_index)
        self._length = len(self._loader)

    def __len__(self) -> int:
        """Return the number of batches of an epoch, for this process."""
        return self._length

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Any]:
        """Return the batches of one epoch from batch `start` on."""
        skipped = start
        if self._set_epoch is not None:
            self._set_epoch(epoch, start * self._num_processes)
            skipped = 0
        # a DataLoader draws a seed at every pass; a resumed run must not be one draw ahead
        with torch.random.fork_rng(devices=[]):
            batches = iter(self._loader)
        for _ in range(skipped):
            next(batches)
        return batches


def loader_workers(wanted: int | None, num_processes: int = 1) -> int:
    """Return the number of worker processes of a loader.

    Args:
        wanted: the setting; None for this process's share of the cores, at most 8.
        num_processes: the number of training processes on this machine.

    Raises:
        PPLValueError: if processes are asked for that would run the user's script again.

    Warns:
        UserWarning: likewise, if the number is left to this function, which then returns 0.

    Example:
        >>> loader_workers(3)
        3
    """
    count = min(8, max(1, joblib.cpu_count() // num_processes)) if wanted is None else wanted
    script = unguarded_script() if count else None
    if script is None:
        return count
    fix = f'{script} would be run again by each of them: put its code under `if __name__ == "__main__":`'
    if wanted is not None:
        raise PPLValueError(f"num_workers={wanted} starts processes, and {fix}, or set num_workers to 0")
    warnings.warn(f"images are read without worker processes, because {fix}", stacklevel=2)
    return 0


def unguarded_script() -> str | None:
    """Return the running script if new processes would run all of its code again; None if they would not.

    New processes import the script unless they are forks. The code of a script without a word of `__name__` has no
    guard.
    """
    method = multiprocessing.get_start_method(allow_none=True) or multiprocessing.get_all_start_methods()[0]
    main = sys.modules.get("__main__")
    path = getattr(main, "__file__", None)
    if method == "fork" or path is None or getattr(main, "__spec__", None) is not None:
        return None
    try:
        source = Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:  # a notebook, or a program packed into one file
        return None
    return None if "__name__" in source else str(path)


def share_of_process(loader: DataLoader[Any], num_processes: int, process_index: int) -> DataLoader[Any]:
    """Return a loader of every `num_processes`-th batch; the workers of this process read no other images.

    The last batches are filled up from the first ones, so that all processes have equally many.
    """
    if num_processes == 1:
        return loader
    from accelerate.data_loader import BatchSamplerShard

    return DataLoader(
        loader.dataset,
        batch_sampler=BatchSamplerShard(loader.batch_sampler, num_processes, process_index),
        num_workers=loader.num_workers,
        collate_fn=loader.collate_fn,
        pin_memory=loader.pin_memory,
        persistent_workers=loader.persistent_workers,
        worker_init_fn=loader.worker_init_fn,
    )
