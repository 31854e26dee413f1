"""Eval mode for several threads that use one model at the same time."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from weakref import WeakKeyDictionary

from torch import nn

from ppl.backbones.eval_mode import EvalMode

__all__ = ["alone_with", "in_eval_mode"]


class _Users:
    """The threads that use one model."""

    def __init__(self) -> None:
        self.condition = threading.Condition()
        self.count = 0
        self.mode: EvalMode | None = None


_USERS: WeakKeyDictionary[nn.Module, _Users] = WeakKeyDictionary()
_LOCK = threading.Lock()


@contextmanager
def in_eval_mode(model: nn.Module) -> Iterator[None]:
    """Put a model in eval mode; its own mode comes back when the last thread that uses the model leaves."""
    users = _users_of(model)
    with users.condition:
        if users.count == 0:
            users.mode = EvalMode(model.modules())
            users.mode.__enter__()
        users.count += 1
    try:
        yield
    finally:
        with users.condition:
            users.count -= 1
            if users.count == 0 and users.mode is not None:
                users.mode.__exit__()
                users.mode = None
                users.condition.notify_all()


@contextmanager
def alone_with(model: nn.Module) -> Iterator[None]:
    """Wait until no thread is inside of :func:`in_eval_mode`, and keep the others out.

    A dry run needs that: it restores the attributes of all modules after it. Never call this inside of
    :func:`in_eval_mode`, which would wait for itself.
    """
    users = _users_of(model)
    with users.condition:
        users.condition.wait_for(lambda: users.count == 0)
        yield


def _users_of(model: nn.Module) -> _Users:
    with _LOCK:
        return _USERS.setdefault(model, _Users())
