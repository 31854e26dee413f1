"""The training loop. Classifiers, affinity networks and segmenters are tasks: `Trainer` trains any `Task`."""

from __future__ import annotations

from ppl.engine.accelerator import open_accelerator
from ppl.engine.batches import EpochBatches
from ppl.engine.config import RUNTIME_KEYS, EngineConfig
from ppl.engine.loss_meter import NonFiniteLossError
from ppl.engine.task import Task
from ppl.engine.trainer import Trainer, TrainSummary

__all__ = [
    "RUNTIME_KEYS",
    "EngineConfig",
    "EpochBatches",
    "NonFiniteLossError",
    "Task",
    "TrainSummary",
    "Trainer",
    "open_accelerator",
]
