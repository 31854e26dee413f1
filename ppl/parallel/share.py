"""The share of the work that this process does: of the processes of one launch, or of an array job."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from typing import Any, Protocol, TypeVar
from zlib import crc32

import torch

from ppl.errors import PPLError, PPLValueError
from ppl.io.listing import normalize_name

__all__ = ["LostProcessError", "Share", "current_share", "shard"]

_START = timedelta(minutes=10)
"""Time in which all processes of a launch must begin."""
_ENDLESS = timedelta(days=365)
"""Time to wait for the others: a step may take days, and the end of a process is noticed at once."""


class LostProcessError(PPLError):
    """Another process of this launch has ended, or never came."""


class _Named(Protocol):
    @property
    def image_id(self) -> str: ...


T = TypeVar("T", bound=_Named)


@dataclass(frozen=True)
class Share:
    """One of several equal shares of the work on many images.

    The shares of one launch (`accelerate launch`, `torchrun`) wait for each other and the first of them writes what
    needs the results of all. The shards of an array job know nothing of each other.

    Attributes:
        index: number of the share, from 0.
        count: number of the shares.
        is_shard: whether this is a shard of an array job.

    Example:
        >>> shares = [Share(index, 2) for index in range(2)]
        >>> [[name for name in ("a", "b", "d", "e") if share.owns(name)] for share in shares]
        [['d', 'e'], ['a', 'b']]
    """

    index: int = 0
    count: int = 1
    is_shard: bool = False

    @property
    def is_first(self) -> bool:
        """Whether this process speaks to the user: it alone shows progress and prints."""
        return self.is_shard or self.index == 0

    @property
    def writes_totals(self) -> bool:
        """Whether this process writes what needs the results of all: manifest, scores, report."""
        return not self.is_shard and self.index == 0

    def owns(self, image_id: str) -> bool:
        """Return whether an image is in this share.

        The answer depends on the image id alone. So each image is done exactly once whatever list a process has read,
        and maps, masks and refined masks of an image are in the same share.
        """
        # numbered names share out more evenly by a checksum than by a random hash: 50 : 50 of 100, not 60 : 40
        return crc32(normalize_name(image_id).encode()) % self.count == self.index

    def part(self, items: Sequence[T]) -> Sequence[T]:
        """Return the samples or jobs of this share, in their order. The part of a part is the part itself."""
        return items if self.count == 1 else [item for item in items if self.owns(item.image_id)]

    def gather(self, value: Any) -> list[Any]:
        """Return the values of all processes of the launch, in their order; for a shard its own value alone.

        Every process must make the call. It waits until all have made it.

        Args:
            value: as `json` can write it; tuples arrive as lists.

        Raises:
            LostProcessError: if another process has ended.
        """
        if self.is_shard or self.count == 1:
            return [value]
        own = torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8)
        try:
            sizes = self._exchange(torch.tensor([len(own)]))
            longest = int(max(sizes))
            padded = torch.cat([own, own.new_zeros(longest - len(own))])
            texts = self._exchange(padded)
        except RuntimeError as error:
            raise LostProcessError(
                "another process of this launch has ended or did not make the same calls, see its error; the same "
                f"command goes on from here ({str(error).splitlines()[0]:.120})"
            ) from None
        return [json.loads(bytes(text[: int(size)].tolist())) for text, size in zip(texts, sizes, strict=True)]

    def wait(self) -> None:
        """Wait until all processes of the launch have come here; a shard does not wait.

        Raises:
            LostProcessError: if another process has ended.
        """
        self.gather(None)

    def _exchange(self, tensor: torch.Tensor) -> list[torch.Tensor]:
        found = [torch.empty_like(tensor) for _ in range(self.count)]
        _group(self.index, self.count).allgather([found], [tensor]).wait()
        return found


_SHARD: ContextVar[Share | None] = ContextVar("shard", default=None)


def current_share() -> Share:
    """Return the share of this process: inside `shard` that shard, otherwise by the launcher's environment variables.

    Example:
        >>> with shard("2/8"):
        ...     current_share()
        Share(index=1, count=8, is_shard=True)
    """
    chosen = _SHARD.get()
    return chosen or Share(int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1")))


@contextmanager
def shard(name: str | None) -> Iterator[None]:
    """Do one of n parts of the work on folders of images inside the block, for array jobs.

    `cam_folder`, `refine_folder`, `predict_folder` and the steps "cam" and "refine" of `run_recipe` obey. The shards
    may run at the same time, on any machines that see the folder. Afterwards the same call outside the block finds all
    images done and writes what needs all of them.

    Args:
        name: `"I/N"`, from `"1/N"` to `"N/N"`; None for no shard.

    Raises:
        PPLValueError: if the name is not understood, or this process is one of several of a launch.

    Example:
        >>> with shard("1/2"):
        ...     current_share().owns("d")
        True
    """
    if name is None:
        yield
        return
    match = re.fullmatch(r"(\d+)/(\d+)", name)
    index, count = map(int, match.groups()) if match else (0, 0)
    if not 1 <= index <= count:
        raise PPLValueError(f"shard {name!r} is not understood; the shards of 8 are 1/8, 2/8, ... 8/8")
    outer = current_share()
    if outer.count > 1 and not outer.is_shard:
        raise PPLValueError(
            f"shard {name!r} and the {outer.count} processes of a launch exclude each other: leave --shard "
            "out, or start one process per shard"
        )
    token = _SHARD.set(Share(index - 1, count, is_shard=True))
    try:
        yield
    finally:
        _SHARD.reset(token)


@cache
def _group(index: int, count: int) -> Any:
    """Connect the processes of the launch, apart from the connections of the training, which have a time limit."""
    from torch.distributed import ProcessGroupGloo
    from torch.distributed.distributed_c10d import PrefixStore
    from torch.distributed.rendezvous import rendezvous

    store, _, _ = next(rendezvous("env://", timeout=_START))
    store = PrefixStore("ppl", store)
    try:
        store.set(f"here/{index}", "")
        store.wait([f"here/{other}" for other in range(count)], _START)
    except RuntimeError as error:
        raise LostProcessError(
            f"not all of the {count} processes of this launch came within {_START}: every process must make the same "
            f"calls ({str(error).splitlines()[0]:.120})"
        ) from None
    return ProcessGroupGloo(store, index, count, _ENDLESS)
