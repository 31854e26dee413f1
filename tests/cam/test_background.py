from __future__ import annotations

import numpy as np
import pytest
import torch

from ppl.cam import PowerBackground, otsu_background
from ppl.cam.background import background_score
from ppl.errors import PPLValueError


def otsu_by_hand(values):
    """The threshold that makes the variance between the two groups largest, by trying every value."""

    def between(threshold):
        low, high = values[values <= threshold], values[values > threshold]
        return len(low) * len(high) * (low.mean() - high.mean()) ** 2

    return max(np.unique(values)[:-1], key=between)


def test_threshold_is_the_same_everywhere():
    assert torch.equal(background_score(torch.rand(3, 4), 0.3), torch.full((3, 4), 0.3))


def test_power_rule():
    best = torch.rand(3, 4)
    expected = torch.tensor([[(1 - float(v)) ** 4 for v in row] for row in best])
    torch.testing.assert_close(background_score(best, PowerBackground(alpha=4)), expected)


def test_auto_splits_like_otsu():
    best = torch.cat([0.2 + 0.05 * torch.randn(300), 0.8 + 0.05 * torch.randn(100)]).clamp(0, 1).reshape(20, 20)
    foreground = best > background_score(best, "auto")
    assert torch.equal(foreground, best > float(otsu_by_hand(best.flatten().numpy())))


def test_auto_of_a_flat_map_is_all_background():
    for value in (0.0, 1.0):
        best = torch.full((4, 4), value)
        assert not (best > otsu_background(best)).any()


@pytest.mark.parametrize("values", [(1, 1 + 2.3e-16), (0, 1e-45), (0, 1e-322)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_auto_of_a_map_that_is_flat_up_to_rounding_is_all_background(values, dtype):
    best = torch.tensor([values], dtype=dtype)
    assert not (best > otsu_background(best)).any()


def test_auto_takes_maps_with_a_gradient():
    best = torch.rand(3, 4)
    assert torch.equal(otsu_background(best.clone().requires_grad_()), otsu_background(best))


def test_auto_ignores_nan():
    best = torch.tensor([[0.0, 0.1, 0.9, float("nan")]])
    assert (best > otsu_background(best)).tolist() == [[False, False, True, False]]
    assert not (torch.full((2, 2), float("nan")) > otsu_background(torch.full((2, 2), float("nan")))).any()


def test_any_function_is_a_rule():
    assert torch.equal(background_score(torch.ones(1, 1), lambda best: best / 2), torch.tensor([[0.5]]))


@pytest.mark.parametrize("background", ["otsu", 1.5, -0.1, float("nan"), True, None])
def test_anything_else_is_an_error(background):
    with pytest.raises(PPLValueError, match="background must be a threshold"):
        background_score(torch.zeros(1, 1), background)


@pytest.mark.parametrize("alpha", [0, -1, float("inf"), float("nan")])
def test_power_must_be_positive(alpha):
    with pytest.raises(PPLValueError, match="alpha must be"):
        PowerBackground(alpha)
