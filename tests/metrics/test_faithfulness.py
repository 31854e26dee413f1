"""Measures of faithfulness against loops over pixels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from ppl.errors import PPLValueError
from ppl.metrics import deletion, energy_inside, insertion, pointing_game


def trapezoid(values, dx):
    """Integrate as `numpy.trapezoid` of NumPy 2 does."""
    values = np.asarray(values, dtype=float)
    return dx * (values[1:] + values[:-1]).sum() / 2


def random_maps(seed=0):
    random = np.random.default_rng(seed)
    return random.random((4, 6, 7)), random.integers(0, 2, (4, 6, 7))


def test_pointing_game_looks_at_the_largest_value():
    maps, masks = random_maps()
    expected = [bool(mask.flat[one.argmax()]) for one, mask in zip(maps, masks, strict=True)]
    assert pointing_game(maps, masks).tolist() == expected
    assert pointing_game(torch.from_numpy(maps), torch.from_numpy(masks)).tolist() == expected


def test_energy_is_the_share_of_the_values_inside():
    maps, masks = random_maps()
    expected = [one[mask > 0].sum() / one.sum() for one, mask in zip(maps, masks, strict=True)]
    np.testing.assert_allclose(energy_inside(maps, masks), expected)
    assert energy_inside(np.zeros((1, 2, 2)), np.ones((1, 2, 2))).isnan().all()


def score(x):
    """Not linear in the pixels, so that their order counts."""
    return x.square().sum(dim=(1, 2, 3)).sqrt()


def by_loops(start, end, saliency, steps):
    order = sorted(range(saliency.size), key=lambda place: -saliency.flat[place])
    scores = []
    for step in range(steps + 1):
        image = start.copy()
        for place in order[: round(step * len(order) / steps)]:
            row, column = divmod(place, saliency.shape[1])
            image[:, row, column] = end[:, row, column]
        scores.append(np.sqrt((image**2).sum()))
    return scores


@pytest.mark.parametrize("steps", [1, 5, 30])
@pytest.mark.parametrize("batch_size", [4, 64])
def test_deletion_replaces_the_most_salient_pixels_first(steps, batch_size):
    random = np.random.default_rng(0)
    image, saliency = random.normal(size=(3, 5, 6)), random.random((5, 6))
    curve = deletion(score, torch.from_numpy(image), saliency, steps=steps, batch_size=batch_size)
    expected = by_loops(image, np.zeros_like(image), saliency, steps)
    np.testing.assert_allclose(curve.scores, expected, atol=1e-12)
    assert curve.area == pytest.approx(trapezoid(expected, dx=1 / steps))


def test_insertion_shows_the_most_salient_pixels_in_a_blurred_image_first():
    random = np.random.default_rng(0)
    image, saliency = random.normal(size=(3, 24, 20)), random.random((24, 20))
    curve = insertion(score, torch.from_numpy(image), saliency, steps=6)
    blurred = np.stack([gaussian_filter(one, 5, mode="constant", truncate=1.0) for one in image])
    expected = by_loops(blurred, image, saliency, 6)
    np.testing.assert_allclose(curve.scores, expected, atol=1e-6)
    assert curve.area == pytest.approx(trapezoid(expected, dx=1 / 6), abs=1e-6)


def test_a_map_of_the_pixels_that_count_has_the_smaller_deletion_and_the_larger_insertion():
    image = torch.zeros(1, 12, 12)
    image[0, 3:6, 3:6] = 2
    good, bad = image[0], 2 - image[0]

    def score(x):
        return x[:, 0, 3:6, 3:6].mean(dim=(1, 2))

    assert deletion(score, image, good).area < deletion(score, image, bad).area
    assert insertion(score, image, good).area > insertion(score, image, bad).area


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: pointing_game(np.zeros((1, 2, 2)), np.zeros((1, 2, 3))), r"\(1, 2, 2\) and masks \(1, 2, 3\)"),
        (lambda: pointing_game(np.full((1, 2, 2), np.nan), np.zeros((1, 2, 2))), "maps hold NaN"),
        (lambda: energy_inside(np.full((1, 2, 2), -1.0), np.zeros((1, 2, 2))), "must not be negative, got -1"),
        (lambda: deletion(score, torch.zeros(3, 4, 5), np.zeros((5, 4))), r"saliency \(5, 4\).*\(3, 4, 5\)"),
        (lambda: insertion(score, torch.zeros(3, 4, 5), np.zeros((4, 5)), steps=0), "steps must be 1 or more, got 0"),
    ],
)
def test_input_that_does_not_fit_is_named(call, message):
    with pytest.raises(PPLValueError, match=message):
        call()
