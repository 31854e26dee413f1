"""The state of one forward pass, and the hook that reads the state at a stage."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from ppl.errors import PPLError
from ppl.layers.padding import BorderPadding

__all__ = ["CurrentPass", "Pass", "StageHook", "Stopped"]


class Stopped(Exception):  # noqa: N818 - no error: it leaves the model's forward
    """Every tapped stage has run, and the pass needs no further layer."""


class Pass:
    """One forward pass: its actions at the hooked stages, and the outputs of the stages.

    Args:
        taps: keys of the stages whose output is kept.
        resume_at: key of the stage whose output is replaced; None replaces none.
        replacement: the features that replace the output.
        padding: becomes active at the replacement.
        stops: end the pass by `Stopped` as soon as every tapped stage has run.
    """

    def __init__(
        self,
        taps: tuple[int, ...] = (),
        resume_at: int | None = None,
        replacement: Any = None,
        padding: BorderPadding | None = None,
        stops: bool = False,
    ) -> None:
        self.resume_at = resume_at
        self.replacement = replacement
        self.padding = padding
        self.stops = stops
        self.features: dict[int, Any] = {}
        self.visits = dict.fromkeys(taps if resume_at is None else (*taps, resume_at), 0)

    def check_visits(self, names: Mapping[int, str]) -> None:
        """Raise PPLError unless every stage of the pass ran exactly once."""
        for key, count in self.visits.items():
            if count != 1:
                raise PPLError(
                    f"stage {names[key]!r} ran {count} times in one pass instead of once: the model's forward skips or "
                    "repeats the module, or a wrapper bypasses it; choose another cut"
                )


class CurrentPass(threading.local):
    """The pass that this thread runs, or None. Copies and pickles start without one."""

    value: Pass | None = None

    def __reduce__(self) -> tuple[type[CurrentPass], tuple[()]]:
        return CurrentPass, ()


class StageHook:
    """Forward hook of one stage. An object, so that it is copied and pickled along with its module.

    Args:
        current: the pass of each thread.
        key: key of the stage in a pass.
        overwritten: a later layer writes into the stage's output (an in-place ReLU), so copies are handed out.
        wrapped: the stage returns a tuple whose first member is its feature.
    """

    def __init__(self, current: CurrentPass, key: int, *, overwritten: bool = False, wrapped: bool = False) -> None:
        self.current = current
        self.key = key
        self.overwritten = overwritten
        self.wrapped = wrapped

    def __call__(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        """Keep or replace the output of the stage, as this thread's pass says; return None to leave it alone.

        Raises:
            Stopped: if the pass needs nothing more.
        """
        run = self.current.value
        if run is None or self.key not in run.visits:
            return None
        run.visits[self.key] += 1
        if self.key == run.resume_at:
            if run.padding is not None:
                run.padding.active = True
            replacement = _clone(run.replacement) if self.overwritten else run.replacement
            return type(output)((replacement, *output[1:])) if self.wrapped else replacement
        features = output[0] if self.wrapped else output
        run.features[self.key] = _clone(features) if self.overwritten else features
        if run.stops and all(run.visits.values()):
            raise Stopped
        return None


def _clone(output: Any) -> Any:
    if isinstance(output, Tensor):
        return output.clone()
    return type(output)(_clone(member) for member in output)
