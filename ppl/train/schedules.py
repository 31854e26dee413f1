"""Schedules: which phase of the model trains on which batch.

A schedule is a pure function `(epoch, update, *, num_phases, epochs) -> tuple of phases`. Every phase in the tuple gets
one forward pass, one backward pass and one optimizer step on the batches of the update, in that order. `epochs` are the
epochs of each phase, and empty if there are fewer epochs than phases.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from itertools import accumulate

from ppl.errors import PPLValueError
from ppl.registry import Registry

__all__ = [
    "PLAIN",
    "SCHEDULES",
    "Schedule",
    "alternate",
    "build_schedule",
    "last",
    "progressive",
    "register_schedule",
    "split_epochs",
    "within_batch",
]

PLAIN = -1
"""The phase of the plain classifier: no patches, every branch sees the un-patched map."""

Schedule = Callable[[int, int], tuple[int, ...]]
"""`schedule(epoch, update)` with both counted from 0, returning the phases to train."""

SCHEDULES: Registry[Callable[..., tuple[int, ...]]] = Registry("schedule")
"""The schedules of cuts by name."""


def register_schedule(name: str, schedule: Callable[..., tuple[int, ...]]) -> None:
    """Add a schedule for `TrainConfig.schedule` and for recipes.

    Args:
        name: the name of the schedule.
        schedule: a function `(epoch, update, *, num_phases, epochs) -> tuple of phases`.

    Raises:
        PPLValueError: if there is another schedule of that name.

    Example:
        >>> def backwards(epoch, update, *, num_phases, epochs):
        ...     return tuple(reversed(range(num_phases)))
        >>> register_schedule("backwards", backwards)
        >>> build_schedule("backwards", num_phases=3, epochs=3)(0, 0)
        (2, 1, 0)
    """
    SCHEDULES.register(name, schedule)


def progressive(epoch: int, update: int, *, num_phases: int, epochs: Sequence[int]) -> tuple[int, ...]:
    """Train one phase after the other, each for its own epochs (figure 2 of the paper).

    Args:
        epoch: the epoch, from 0.
        update: the update within the epoch, from 0; not used.
        num_phases: number of phases of the model.
        epochs: epochs of each phase, in order; the last phase also gets all later epochs.

    Returns:
        A single phase.

    Example:
        >>> [progressive(epoch, 0, num_phases=3, epochs=[1, 1, 2])[0] for epoch in range(4)]
        [0, 1, 2, 2]
    """
    return (min(bisect_right(list(accumulate(epochs)), epoch), num_phases - 1),)


def within_batch(epoch: int, update: int, *, num_phases: int, epochs: Sequence[int]) -> tuple[int, ...]:
    """Train every phase on every batch, one optimizer step each, as PMG does (Du et al., ECCV 2020).

    Example:
        >>> within_batch(0, 7, num_phases=3, epochs=[1, 1, 1])
        (0, 1, 2)
    """
    return tuple(range(num_phases))


def alternate(epoch: int, update: int, *, num_phases: int, epochs: Sequence[int]) -> tuple[int, ...]:
    """Train the phases in turn, update by update, with as many steps as a single phase takes. Ours.

    Example:
        >>> [alternate(0, update, num_phases=3, epochs=[1, 1, 1])[0] for update in range(4)]
        [0, 1, 2, 0]
    """
    return (update % num_phases,)


def last(epoch: int, update: int, *, num_phases: int, epochs: Sequence[int]) -> tuple[int, ...]:
    """Train the last phase throughout: the only phase of explicit patch learning (figure 5), control and baseline.

    Example:
        >>> last(0, 0, num_phases=3, epochs=[1, 1, 1])
        (2,)
    """
    return (num_phases - 1,)


register_schedule("progressive", progressive)
register_schedule("within_batch", within_batch)
register_schedule("alternate", alternate)
register_schedule("last", last)


def split_epochs(epochs: int, num_phases: int) -> list[int]:
    """Share epochs equally among phases; a rest goes to the deeper phases, from which CAMs are read.

    Returns:
        Epochs of each phase.

    Raises:
        PPLValueError: if a phase would get no epoch.

    Example:
        >>> split_epochs(8, 3)
        [2, 3, 3]
    """
    if epochs < num_phases:
        raise PPLValueError(
            f"{epochs} epochs are too few for {num_phases} phases; train for {num_phases} or more, or give fewer cuts"
        )
    short, extra = divmod(epochs, num_phases)
    return [short + (phase >= num_phases - extra) for phase in range(num_phases)]


def build_schedule(
    name: str,
    *,
    num_phases: int,
    epochs: int,
    epochs_per_phase: Sequence[int] | None = None,
    warmup_epochs: int = 0,
) -> Schedule:
    """Return a schedule by name, after an optional warm-up as a plain classifier.

    Args:
        name: a key of `SCHEDULES`.
        num_phases: number of phases of the model.
        epochs: number of epochs, the warm-up included.
        epochs_per_phase: epochs of each phase, used by "progressive" alone; None for equal shares.
        warmup_epochs: epochs at the start in which the phase is `PLAIN`.

    Returns:
        A function `(epoch, update) -> phases`, both counted from 0.

    Raises:
        PPLValueError: for an unknown name, or epochs that do not add up.

    Example:
        >>> schedule = build_schedule("progressive", num_phases=2, epochs=5, warmup_epochs=1)
        >>> [schedule(epoch, 0) for epoch in range(5)]
        [(-1,), (0,), (0,), (1,), (1,)]
    """
    phases_of = SCHEDULES.find(name)
    patched = epochs - warmup_epochs
    if patched < 1:
        raise PPLValueError(f"warmup_epochs={warmup_epochs} leaves none of {epochs} epochs for patches; shorten it")
    if name == "progressive" and epochs_per_phase is not None:
        share = list(epochs_per_phase)
        if len(share) != num_phases or sum(share) != patched or min(share) < 1:
            raise PPLValueError(
                f"epochs_per_phase={share} must hold one number per phase ({num_phases}), each 1 or more, "
                f"and add up to {patched} (epochs less warm-up)"
            )
    elif name == "progressive" or patched >= num_phases:
        share = split_epochs(patched, num_phases)
    else:
        share = []

    def schedule(epoch: int, update: int) -> tuple[int, ...]:
        if epoch < warmup_epochs:
            return (PLAIN,)
        return phases_of(epoch - warmup_epochs, update, num_phases=num_phases, epochs=share)

    return schedule
