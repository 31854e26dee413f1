"""Probabilities of CAMs against the formulas of PSA and IRN."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ppl.errors import PPLValueError
from ppl.refine import cams_to_probs


@pytest.fixture
def cams():
    return np.random.default_rng(0).random((3, 5, 6)).astype(np.float32)


def test_constant_background_has_the_threshold_as_boundary(cams):
    probs = cams_to_probs(cams, 0.6)
    np.testing.assert_allclose(probs.sum(axis=0), 1, atol=1e-6)
    expected = np.where(cams.max(axis=0) > 0.6, cams.argmax(axis=0) + 1, 0)
    np.testing.assert_array_equal(probs.argmax(axis=0), expected)


def test_power_background(cams):
    probs = cams_to_probs(torch.from_numpy(cams), lambda best: (1 - best) ** 4)
    stack = np.concatenate([(1 - cams.max(axis=0, keepdims=True)) ** 4, cams])
    np.testing.assert_allclose(probs.numpy(), stack / stack.sum(axis=0), atol=1e-6)


def test_pixels_without_a_score_and_images_without_a_class_are_background():
    np.testing.assert_array_equal(cams_to_probs(np.zeros((2, 1, 1), np.float32), 0.0)[:, 0, 0], [1, 0, 0])
    np.testing.assert_array_equal(cams_to_probs(np.zeros((0, 2, 3), np.float32)), np.ones((1, 2, 3)))


@pytest.mark.parametrize(
    ("maps", "background", "words"),
    [
        (np.full((1, 2, 2), -1, np.float32), 0.2, "ReLU"),
        (np.full((1, 2, 2), np.nan, np.float32), 0.2, "NaN"),
        (np.zeros((1, 2, 2), np.float32), 1.5, "1.5"),
        (np.zeros((2, 2), np.float32), 0.2, r"\(k, h, w\)"),
        (np.full((1, 2, 2), 255, np.float32), 0.2, r"\[0, 1\], got 255.*by 255"),
        (np.zeros((0, 2, 2), np.float32), -0.1, "-0.1"),
    ],
)
def test_bad_input_is_named(maps, background, words):
    with pytest.raises(PPLValueError, match=words):
        cams_to_probs(maps, background)
