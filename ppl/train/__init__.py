"""Training of classifiers: schedules of the phases, losses, and `fit`, a task of `ppl.engine`."""

from __future__ import annotations

from ppl.engine import NonFiniteLossError, TrainSummary
from ppl.train.auxiliary import AUXILIARY
from ppl.train.config import TrainConfig
from ppl.train.fit import check_fit, fit
from ppl.train.losses import LOSSES, register_loss
from ppl.train.schedules import PLAIN, SCHEDULES, register_schedule

__all__ = [
    "AUXILIARY",
    "LOSSES",
    "PLAIN",
    "SCHEDULES",
    "NonFiniteLossError",
    "TrainConfig",
    "TrainSummary",
    "check_fit",
    "fit",
    "register_loss",
    "register_schedule",
]
