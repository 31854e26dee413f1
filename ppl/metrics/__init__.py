"""Scores over a whole data set: IoU, mean average precision, scores by threshold, coverage of parts."""

from __future__ import annotations

from ppl.metrics.average_precision import average_precision, mean_average_precision
from ppl.metrics.confusion import ConfusionMatrix, Scores, scores_of
from ppl.metrics.coverage import PartCoverage, coverage
from ppl.metrics.sweep import ThresholdSweep

__all__ = [
    "ConfusionMatrix",
    "PartCoverage",
    "Scores",
    "ThresholdSweep",
    "average_precision",
    "coverage",
    "mean_average_precision",
    "scores_of",
]
