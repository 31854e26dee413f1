"""Which stage of the model trains on which batch.

A schedule is a pure function `(epoch, batch, *, num_stages, epochs) -> tuple of stages`. Every stage in the tuple gets
one forward, one backward and one optimiser step on that batch, in that order. `epochs` are each stage's share of the
epochs, and empty if there are fewer epochs than stages. Another schedule is another function and one line in
`SCHEDULES`.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate

from ppl.errors import PPLValueError

__all__ = [
    "PLAIN",
    "SCHEDULES",
    "Schedule",
    "alternate",
    "build_schedule",
    "last",
    "progressive",
    "split_epochs",
    "within_batch",
]

PLAIN = -1
"""The stage that stands for the plain classifier: no patches, every branch sees the un-patched map."""

Schedule = Callable[[int, int], tuple[int, ...]]
"""`schedule(epoch, batch)` with both counted from 0, returning the stages to train on that batch."""


def progressive(epoch: int, batch: int, *, num_stages: int, epochs: Sequence[int]) -> tuple[int, ...]:
    """Stage after stage, each for its own share of the epochs (figure 2 of the paper).

    Args:
        epoch: the epoch, from 0.
        batch: the batch within the epoch, from 0; not looked at.
        num_stages: number of stages of the model.
        epochs: epochs of each stage, in order; the last stage goes on beyond its share.

    Returns:
        The one stage that trains.

    Example:
        >>> [progressive(epoch, 0, num_stages=3, epochs=[1, 1, 2])[0] for epoch in range(4)]
        [0, 1, 2, 2]
    """
    return (min(bisect_right(list(accumulate(epochs)), epoch), num_stages - 1),)


def within_batch(epoch: int, batch: int, *, num_stages: int, epochs: Sequence[int]) -> tuple[int, ...]:
    """Every stage on every batch, one optimiser step each, as PMG does (Du et al., ECCV 2020).

    Example:
        >>> within_batch(0, 7, num_stages=3, epochs=[1, 1, 1])
        (0, 1, 2)
    """
    return tuple(range(num_stages))


def alternate(epoch: int, batch: int, *, num_stages: int, epochs: Sequence[int]) -> tuple[int, ...]:
    """The stages in turn, batch by batch: as many steps as one stage takes, all stages kept alive. Ours.

    Example:
        >>> [alternate(0, batch, num_stages=3, epochs=[1, 1, 1])[0] for batch in range(4)]
        [0, 1, 2, 0]
    """
    return (batch % num_stages,)


def last(epoch: int, batch: int, *, num_stages: int, epochs: Sequence[int]) -> tuple[int, ...]:
    """The last stage throughout: explicit patch learning (figure 5), control and baseline have no other.

    Example:
        >>> last(0, 0, num_stages=3, epochs=[1, 1, 1])
        (2,)
    """
    return (num_stages - 1,)


SCHEDULES: Mapping[str, Callable[..., tuple[int, ...]]] = {
    "progressive": progressive,
    "within_batch": within_batch,
    "alternate": alternate,
    "last": last,
}


def split_epochs(epochs: int, num_stages: int) -> list[int]:
    """Share epochs equally among stages; what does not divide goes to the deeper ones, where the CAM is read.

    Args:
        epochs: epochs in all, at least `num_stages`.
        num_stages: number of stages.

    Returns:
        Epochs of each stage.

    Raises:
        PPLValueError: if a stage would get no epoch.

    Example:
        >>> split_epochs(8, 3)
        [2, 3, 3]
    """
    if epochs < num_stages:
        raise PPLValueError(
            f"{epochs} epochs are too few for {num_stages} stages; train for {num_stages} or more, or give fewer cuts"
        )
    short, extra = divmod(epochs, num_stages)
    return [short + (stage >= num_stages - extra) for stage in range(num_stages)]


def build_schedule(
    name: str,
    *,
    num_stages: int,
    epochs: int,
    epochs_per_stage: Sequence[int] | None = None,
    warmup_epochs: int = 0,
) -> Schedule:
    """A schedule by name, after an optional warm-up as a plain classifier.

    Args:
        name: a key of `SCHEDULES`.
        num_stages: number of stages of the model.
        epochs: epochs in all, the warm-up included.
        epochs_per_stage: epochs of each stage, for "progressive"; other schedules do not look at it. None shares what
            the warm-up leaves equally.
        warmup_epochs: epochs at the start in which the stage is `PLAIN`.

    Returns:
        A function `(epoch, batch) -> stages`, both counted from 0.

    Raises:
        PPLValueError: for an unknown name, or epochs that do not add up.

    Example:
        >>> schedule = build_schedule("progressive", num_stages=2, epochs=5, warmup_epochs=1)
        >>> [schedule(epoch, 0) for epoch in range(5)]
        [(-1,), (0,), (0,), (1,), (1,)]
    """
    if name not in SCHEDULES:
        raise PPLValueError(f"unknown schedule {name!r}; choose one of {', '.join(SCHEDULES)}")
    patched = epochs - warmup_epochs
    if patched < 1:
        raise PPLValueError(f"warmup_epochs={warmup_epochs} leaves none of {epochs} epochs for patches; shorten it")
    if name == "progressive" and epochs_per_stage is not None:
        share = list(epochs_per_stage)
        if len(share) != num_stages or sum(share) != patched or min(share) < 1:
            raise PPLValueError(
                f"epochs_per_stage={share} must hold one number per stage ({num_stages}), each 1 or more, "
                f"and add up to {patched} (epochs less warm-up)"
            )
    elif name == "progressive" or patched >= num_stages:
        share = split_epochs(patched, num_stages)
    else:
        share = []
    stages_of = SCHEDULES[name]

    def schedule(epoch: int, batch: int) -> tuple[int, ...]:
        if epoch < warmup_epochs:
            return (PLAIN,)
        return stages_of(epoch - warmup_epochs, batch, num_stages=num_stages, epochs=share)

    return schedule
