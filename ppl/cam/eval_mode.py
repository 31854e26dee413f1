"""Eval mode for several threads that use one model at the same time."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from weakref import WeakKeyDictionary

from torch import nn

from ppl.backbones.eval_mode import EvalMode

__all__ = ["in_eval_mode"]


class _Users:
    """The number of threads that use one model, and the modules to switch back."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.count = 0
        self.mode: EvalMode | None = None


_USERS: WeakKeyDictionary[nn.Module, _Users] = WeakKeyDictionary()
_LOCK = threading.Lock()


@contextmanager
def in_eval_mode(model: nn.Module) -> Iterator[None]:
    """Put a model in eval mode; its own mode comes back when the last thread that uses the model leaves."""
    users = _users_of(model)
    with users.lock:
        if users.count == 0:
            users.mode = EvalMode(model.modules())
            users.mode.__enter__()
        users.count += 1
    try:
        yield
    finally:
        with users.lock:
            users.count -= 1
            if users.count == 0 and users.mode is not None:
                users.mode.__exit__()
                users.mode = None


def _users_of(model: nn.Module) -> _Users:
    with _LOCK:
        return _USERS.setdefault(model, _Users())
