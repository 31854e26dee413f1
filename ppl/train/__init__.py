"""Schedules, losses and the trainer."""

from __future__ import annotations

from ppl.train.config import TrainConfig

__all__ = ["TrainConfig"]
