"""What a pass should do at each stage, and the hook that does it."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from ppl.errors import PPLError

__all__ = ["Plan", "StageHook"]


class Plan:
    """The state that the hooks of one `CutBackbone` read during a pass; outside a pass it asks for nothing.

    The hooks are registered once and read this object, so that a compiled model sees them and none can leak.
    """

    def __init__(self) -> None:
        self.taps: tuple[int, ...] = ()
        self.resume_at: int | None = None
        self.replacement: Any = None
        self.features: dict[int, Any] = {}
        self.visits: dict[int, int] = {}
        self.in_tail = False

    def begin(self, taps: tuple[int, ...] = (), resume_at: int | None = None, replacement: Any = None) -> None:
        """Arm the hooks: keep what the stages `taps` return, or replace what stage `resume_at` returns."""
        self.taps = taps
        self.resume_at = resume_at
        self.replacement = replacement
        self.features = {}
        self.visits = dict.fromkeys(taps if resume_at is None else (*taps, resume_at), 0)
        self.in_tail = resume_at is None

    def end(self) -> None:
        """Disarm the hooks and let go of every tensor."""
        self.begin()
        self.in_tail = False

    def check_visits(self, names: dict[int, str]) -> None:
        """Raise PPLError unless every armed hook was visited exactly once."""
        for index, count in self.visits.items():
            if count != 1:
                raise PPLError(
                    f"stage {names[index]!r} ran {count} times in one pass instead of once: something calls around its "
                    "module (a model whose forward skips it, or a wrapper); choose another cut"
                )


class StageHook:
    """Forward hook of one stage: a callable object, so that it is copied and pickled along with its module.

    Args:
        plan: what to do.
        index: the stage's key in the plan.
        overwritten: a later layer writes into the stage's output (an in-place ReLU, say), so copies are passed.
        wrapped: the stage returns a tuple, of which the first member is its feature.
    """

    def __init__(self, plan: Plan, index: int, *, overwritten: bool = False, wrapped: bool = False) -> None:
        self.plan = plan
        self.index = index
        self.overwritten = overwritten
        self.wrapped = wrapped

    def __call__(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        """Keep, replace or leave alone what the stage returned, as the plan says."""
        plan = self.plan
        if self.index not in plan.visits:
            return None
        plan.visits[self.index] += 1
        if self.index == plan.resume_at:
            plan.in_tail = True
            replacement = _clone(plan.replacement) if self.overwritten else plan.replacement
            return type(output)((replacement, *output[1:])) if self.wrapped else replacement
        features = output[0] if self.wrapped else output
        plan.features[self.index] = _clone(features) if self.overwritten else features
        return None


def _clone(output: Any) -> Any:
    if isinstance(output, Tensor):
        return output.clone()
    return type(output)(_clone(member) for member in output)
