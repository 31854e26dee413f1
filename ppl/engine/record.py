"""How far a run is."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

__all__ = ["RunRecord"]


@dataclass
class RunRecord:
    """Position, history and best epoch of a run, saved with the training state.

    Attributes:
        epoch: finished epochs.
        update: finished updates of the current epoch; an update is one group of accumulated batches.
        step: finished optimizer steps.
        best_score: score of the best epoch; None before there is one.
        best_epoch: the best epoch, from 0; -1 before there is one.
        stopped: whether patience ended the run.
        history: one mapping per epoch, the lines of `metrics.jsonl`.
    """

    epoch: int = 0
    update: int = 0
    step: int = 0
    best_score: float | None = None
    best_epoch: int = -1
    stopped: bool = False
    history: list[dict[str, Any]] = field(default_factory=list)

    def close_epoch(
        self,
        line: dict[str, Any],
        score: float | None,
        *,
        may_be_best: bool = True,
        greater_is_better: bool = True,
        patience: int | None = None,
    ) -> bool:
        """Add an epoch to the history.

        Args:
            line: the numbers of the epoch.
            score: the validation score. Without a score (None), or with NaN before there is any, the later epoch is
                the better one.
            may_be_best: False for an epoch that is neither the best nor counted towards `patience`.
            greater_is_better: False if a lower score is the better one.
            patience: epochs without a better score after which the run stops.

        Returns:
            Whether the epoch is the best one so far.
        """
        self.history.append({"epoch": self.epoch, **line})
        improved = False
        if may_be_best:
            known = None if score is None or math.isnan(score) else score
            sign = 1 if greater_is_better else -1
            improved = self.best_score is None or (known is not None and sign * (known - self.best_score) > 0)
            if improved:
                self.best_score, self.best_epoch = known, self.epoch
            self.stopped = patience is not None and self.epoch - self.best_epoch >= patience
        self.epoch, self.update = self.epoch + 1, 0
        return improved

    def title(self, epochs: int, score_name: str) -> str:
        """Return the text of the progress bar: the current epoch, and loss and score of the epoch before."""
        title = f"epoch {self.epoch + 1}/{epochs}"
        if self.history:
            line = self.history[-1]
            score = line.get(score_name)
            title += f" (loss {line['loss']:.3f}" + ("" if score is None else f", {score_name} {score:.3f}") + ")"
        return title
