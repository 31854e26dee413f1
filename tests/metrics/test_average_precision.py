from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from ppl.errors import PPLTypeError
from ppl.metrics import average_precision, mean_average_precision


@pytest.mark.parametrize("scale", [0.1, 1.0, 1000.0])
@pytest.mark.parametrize("ties", [False, True])
def test_it_agrees_with_scikit_learn_at_any_scale(scale, ties):
    from sklearn.metrics import average_precision_score

    rng = np.random.default_rng(0)
    scores, targets = rng.normal(size=(80, 6)) * scale, rng.integers(0, 2, (80, 6))
    scores = np.round(scores / scale) * scale if ties else scores
    expected = average_precision_score(targets, scores, average=None)
    assert np.allclose(average_precision(scores, targets), expected, atol=1e-6)
    assert mean_average_precision(torch.from_numpy(scores), torch.from_numpy(targets)) == pytest.approx(expected.mean())


def test_large_logits_do_not_tie():
    scores = torch.tensor([[40.0], [30.0], [20.0]])
    assert mean_average_precision(scores, torch.tensor([[1.0], [0.0], [0.0]])) == 1.0


def test_classes_without_positives_are_left_out():
    targets = torch.tensor([[1, 0, 1], [0, 0, 1]])
    result = average_precision(torch.tensor([[1.0, 5.0, 0.0], [0.0, 2.0, 0.0]]), targets)
    assert result[[0, 2]].tolist() == [1.0, 1.0]
    assert math.isnan(result[1])
    assert mean_average_precision(torch.rand(2, 3), torch.zeros(2, 3)) != mean_average_precision(
        torch.rand(2, 3), targets
    )
    assert math.isnan(mean_average_precision(torch.rand(2, 3), torch.zeros(2, 3)))
    assert math.isnan(mean_average_precision(torch.rand(0, 3), torch.zeros(0, 3)))


def test_half_precision_and_one_image():
    assert mean_average_precision(torch.tensor([[0.5, 0.1]]).half(), torch.tensor([[1.0, 0.0]])) == 1.0


def test_bad_input():
    with pytest.raises(ValueError, match=r"\(2, 3\) and targets \(2, 2\)"):
        average_precision(torch.rand(2, 3), torch.zeros(2, 2))
    with pytest.raises(ValueError, match="class 1 in row 0 is NaN"):
        average_precision(torch.tensor([[0.0, math.nan]]), torch.zeros(1, 2))
    with pytest.raises(ValueError, match="zeros and ones"):
        average_precision(torch.rand(1, 2), torch.tensor([[0.5, 1.0]]))


def test_any_memory_layout_of_numpy_scores_the_same():
    scores, targets = np.array([[0.9, 1.0], [0.8, 0.0], [0.1, 3.0]]), np.array([[1, 0], [0, 1], [1, 0]])
    expected = average_precision(scores, targets)
    assert torch.equal(average_precision(scores.astype(">f4"), targets.astype(">i2")), expected)
    assert torch.equal(average_precision(scores[::-1], targets[::-1]), expected)


def test_input_that_is_not_an_array_of_numbers_is_refused_by_name():
    with pytest.raises(PPLTypeError, match="scores is None"):
        average_precision(None, [[1]])
    with pytest.raises(PPLTypeError, match=r"targets is .*cat"):
        average_precision([[0.5]], [["cat"]])
