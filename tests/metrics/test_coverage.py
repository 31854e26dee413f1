from __future__ import annotations

import math

import numpy as np
import pytest

from ppl.metrics import PartCoverage, coverage


def test_it_equals_counting_by_hand():
    rng = np.random.default_rng(0)
    target, prediction, parts = rng.integers(0, 4, (3, 20, 30))
    parts = np.minimum(parts, 2)
    target[rng.random((20, 30)) < 0.1] = 255
    covered = PartCoverage(("head", "body"))
    for row in range(20):
        covered.update(target[row], prediction[row], parts[row])
    for name, index in (("head", 1), ("body", 2)):
        inside = [
            (t, p)
            for t, p, q in zip(target.flat, prediction.flat, parts.flat, strict=True)
            if q == index and 0 < t < 255
        ]
        assert covered.compute()[name] == pytest.approx(sum(t == p for t, p in inside) / len(inside))
    assert coverage(target, prediction, parts, ("head", "body")) == covered.compute()


def test_a_wrong_class_does_not_cover_and_missing_parts_are_nan():
    result = coverage([[2, 2]], [[1, 2]], [[1, 1]], ("head", "body"))
    assert result["head"] == 0.5
    assert math.isnan(result["body"])


def test_parts_without_names_are_numbered_as_they_occur():
    assert coverage([[2, 2, 1]], [[1, 2, 1]], [[1, 1, 7]]) == {"part 1": 0.5, "part 7": 1.0}
    assert coverage([[1]], [[1]], [[0]]) == {}


def test_merging_and_bad_input():
    left, right = PartCoverage(("a",)), PartCoverage(("a",))
    left.update([1], [1], [1])
    right.update([1], [0], [1])
    left.merge(right)
    assert left.compute() == {"a": 0.5}
    with pytest.raises(ValueError, match="cannot merge"):
        left.merge(PartCoverage(("b",)))
    with pytest.raises(ValueError, match="part_mask holds 2"):
        left.update([1], [1], [2])
    with pytest.raises(ValueError, match=r"\(1,\) and \(2,\)"):
        left.update([1], [1], [1, 1])
    with pytest.raises(ValueError, match="list of parts is empty"):
        PartCoverage(())


def test_any_memory_layout_of_numpy_counts_the_same():
    target, prediction, parts = (np.array(row, ">i4")[::-1] for row in ([0, 1, 1, 1], [1, 1, 0, 0], [0, 1, 2, 2]))
    assert coverage(target, prediction, parts, ("head", "body")) == {"head": 1.0, "body": 0.0}
