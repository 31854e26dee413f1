"""Scores over a whole data set: IoU, mean average precision, scores by threshold, coverage of parts, faithfulness."""

from __future__ import annotations

from ppl.metrics.average_precision import average_precision, mean_average_precision
from ppl.metrics.confusion import ConfusionMatrix, Scores, scores_of
from ppl.metrics.coverage import PartCoverage, coverage
from ppl.metrics.faithfulness import Curve, deletion, energy_inside, insertion, pointing_game
from ppl.metrics.sweep import ThresholdSweep

__all__ = [
    "ConfusionMatrix",
    "Curve",
    "PartCoverage",
    "Scores",
    "ThresholdSweep",
    "average_precision",
    "coverage",
    "deletion",
    "energy_inside",
    "insertion",
    "mean_average_precision",
    "pointing_game",
    "scores_of",
]
