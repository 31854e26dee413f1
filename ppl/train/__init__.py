"""Training: schedules, losses, optimisers, and `fit`, which runs them with checkpoints that survive a kill."""

from __future__ import annotations

from ppl.train.auxiliary import AUXILIARY
from ppl.train.config import TrainConfig
from ppl.train.losses import LOSSES
from ppl.train.meter import NonFiniteLossError
from ppl.train.schedules import PLAIN, SCHEDULES
from ppl.train.trainer import TrainSummary, fit

__all__ = [
    "AUXILIARY",
    "LOSSES",
    "PLAIN",
    "SCHEDULES",
    "NonFiniteLossError",
    "TrainConfig",
    "TrainSummary",
    "fit",
]
