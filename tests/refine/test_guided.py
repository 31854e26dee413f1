"""The guided filter against its definition, window by window."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ppl.errors import PPLValueError
from ppl.refine import guided_filter


def brute_force(image, maps, radius, eps):
    guide = image.astype(np.float64) / 255
    height, width = guide.shape[:2]

    def window(y, x):
        return np.s_[max(y - radius, 0) : y + radius + 1, max(x - radius, 0) : x + radius + 1]

    slopes = np.zeros((len(maps), height, width, 3))
    offsets = np.zeros((len(maps), height, width))
    for y in range(height):
        for x in range(width):
            colours = guide[window(y, x)].reshape(-1, 3)
            centred = colours - colours.mean(axis=0)
            matrix = centred.T @ centred / len(colours) + eps * np.eye(3)
            for k, values in enumerate(maps):
                target = values[window(y, x)].ravel().astype(np.float64)
                slopes[k, y, x] = np.linalg.solve(matrix, centred.T @ (target - target.mean()) / len(colours))
                offsets[k, y, x] = target.mean() - slopes[k, y, x] @ colours.mean(axis=0)
    result = np.zeros((len(maps), height, width))
    for y in range(height):
        for x in range(width):
            for k in range(len(maps)):
                slope = slopes[k][window(y, x)].reshape(-1, 3).mean(axis=0)
                result[k, y, x] = slope @ guide[y, x] + offsets[k][window(y, x)].mean()
    return result


@pytest.fixture
def scene():
    random = np.random.default_rng(0)
    return random.integers(0, 256, (9, 12, 3)).astype(np.uint8), random.random((2, 9, 12)).astype(np.float32)


@pytest.mark.parametrize(("radius", "eps"), [(1, 1e-3), (2, 1e-2), (4, 1e-4), (30, 1e-3), (0, 1e-3)])
def test_equals_the_definition(scene, radius, eps):
    refined = guided_filter(*scene, radius=radius, eps=eps)
    np.testing.assert_allclose(refined, brute_force(*scene, radius, eps), atol=1e-5)


def test_a_flat_image_blurs_by_two_box_filters(scene):
    image, maps = np.full((9, 12, 3), 40, np.uint8), scene[1]
    np.testing.assert_allclose(guided_filter(image, maps, radius=2), brute_force(image, maps, 2, 1e-4), atol=1e-6)


def test_sums_are_kept_and_batches_equal_singles(scene):
    image, maps = scene
    probabilities = maps / maps.sum(axis=0)
    refined = guided_filter(image, probabilities, radius=3)
    np.testing.assert_allclose(refined.sum(axis=0), 1, atol=1e-5)
    batch = guided_filter(np.stack([image, image[::-1]]), np.stack([probabilities, maps]), radius=3)
    np.testing.assert_allclose(batch[0], refined, atol=1e-6)


def test_gradient_in_maps(scene):
    values = torch.from_numpy(scene[1]).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda m: guided_filter(scene[0], m, radius=2), (values,), fast_mode=True)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_returned_as_half_precision(scene, dtype):
    refined = guided_filter(scene[0], torch.from_numpy(scene[1]).to(dtype), radius=2)
    assert refined.dtype == dtype
    np.testing.assert_allclose(refined.float().numpy(), guided_filter(*scene, radius=2), atol=2e-2)


@pytest.mark.parametrize("size", [(1, 1), (1, 6), (0, 5)])
def test_tiny_and_empty_images(size):
    refined = guided_filter(np.zeros((*size, 3), np.uint8), np.ones((2, *size), np.float32))
    assert refined.shape == (2, *size)
    np.testing.assert_allclose(refined, 1, atol=1e-6)


@pytest.mark.parametrize("eps", [1e-8, 1e8])
def test_the_least_and_the_greatest_eps_keep_a_constant(eps):
    image = np.full((60, 70, 3), 40, np.uint8)
    image[:, 30:] = 215
    np.testing.assert_allclose(guided_filter(image, np.ones((1, 60, 70), np.float32), eps=eps), 1, atol=1e-4)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"image": np.zeros((9, 11, 3), np.uint8)}, r"\(9, 11\)"),
        ({"maps": np.full((1, 9, 12), np.nan, np.float32)}, "NaN"),
        ({"radius": -1}, "radius=-1"),
        ({"eps": 0}, "eps=0"),
        ({"eps": 1e-120}, "eps=1e-120"),
        ({"eps": np.inf}, "eps=inf"),
    ],
)
def test_bad_input_is_named(scene, change, words):
    with pytest.raises(PPLValueError, match=words):
        guided_filter(**{"image": scene[0], "maps": scene[1], **change})
