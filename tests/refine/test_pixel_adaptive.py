"""Pixel-adaptive refinement against a loop over pixels and neighbours."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ppl.errors import PPLTypeError, PPLValueError
from ppl.refine import pixel_adaptive


def brute_force(image, maps, iterations, dilations):
    image = image.astype(np.float64) / 255
    maps = maps.astype(np.float64)
    height, width = image.shape[:2]

    def at(array, y, x):
        return array[..., min(max(y, 0), height - 1), min(max(x, 0), width - 1)]

    channels = image.transpose(2, 0, 1)
    for _ in range(iterations):
        result = np.zeros_like(maps)
        for y in range(height):
            for x in range(width):
                window = [(y + d * v, x + d * u) for d in dilations for v in (-1, 0, 1) for u in (-1, 0, 1)]
                deviation = np.std([at(channels, *cell) for cell in window], axis=0, ddof=1)
                neighbours = [cell for cell in window if cell != (y, x)]
                logits = np.array(
                    [
                        -np.mean(np.abs(at(channels, *cell) - channels[:, y, x]) / (1e-8 + 0.1 * deviation))
                        for cell in neighbours
                    ]
                )
                weights = np.exp(logits - logits.max())
                weights /= weights.sum()
                result[:, y, x] = sum(w * at(maps, *cell) for w, cell in zip(weights, neighbours, strict=True))
        maps = result
    return maps


@pytest.fixture
def scene():
    random = np.random.default_rng(0)
    image = random.integers(0, 256, (7, 11, 3)).astype(np.uint8)
    image[:3, :5] = 90  # a flat region, where the deviation is nearly zero
    return image, random.random((2, 7, 11)).astype(np.float32)


@pytest.mark.parametrize(("iterations", "dilations"), [(1, (1,)), (3, (1, 2, 4)), (2, (1, 2, 4, 8, 12, 24))])
def test_equals_the_loop(scene, iterations, dilations):
    refined = pixel_adaptive(*scene, iterations=iterations, dilations=dilations)
    np.testing.assert_allclose(refined, brute_force(*scene, iterations, dilations), atol=2e-5)


def test_batch_equals_singles(scene):
    image, maps = scene
    images, batch = np.stack([image, 255 - image]), np.stack([maps, maps[::-1]])
    expected = np.stack([pixel_adaptive(i, m) for i, m in zip(images, batch, strict=True)])
    np.testing.assert_allclose(pixel_adaptive(images, batch), expected, atol=1e-6)
    assert pixel_adaptive(images[:1], batch[:1]).shape == (1, 2, 7, 11)


def test_gradient_in_maps(scene):
    image, maps = scene
    values = torch.from_numpy(maps).double().requires_grad_()
    assert torch.autograd.gradcheck(
        lambda m: pixel_adaptive(image, m, iterations=2, dilations=(1, 3)), (values,), fast_mode=True
    )


def test_probabilities_stay_probabilities(scene):
    image, maps = scene
    probabilities = maps / maps.sum(axis=0)
    refined = pixel_adaptive(image, probabilities)
    np.testing.assert_allclose(refined.sum(axis=0), 1, atol=1e-5)
    assert refined.min() >= 0


def test_uint8_and_unit_float_images_agree(scene):
    image, maps = scene
    np.testing.assert_allclose(
        pixel_adaptive(image, maps), pixel_adaptive(image.astype(np.float32) / 255, maps), atol=1e-5
    )


@pytest.mark.parametrize("size", [(1, 1), (1, 5), (4, 1)])
def test_images_smaller_than_the_window(size):
    image = np.zeros((*size, 3), np.uint8)
    np.testing.assert_allclose(pixel_adaptive(image, np.ones((1, *size), np.float32)), 1, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_returned_as_half_precision(scene, dtype):
    image, maps = scene
    refined = pixel_adaptive(image, torch.from_numpy(maps).to(dtype))
    assert refined.dtype == dtype
    np.testing.assert_allclose(refined.float().numpy(), pixel_adaptive(image, maps), atol=2e-2)


def test_without_iterations_or_maps_the_result_is_a_copy(scene):
    image, maps = scene
    same = pixel_adaptive(image, maps, iterations=0)
    np.testing.assert_array_equal(same, maps)
    assert not np.shares_memory(same, maps)
    assert pixel_adaptive(image, maps[:0]).shape == (0, 7, 11)


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"image": np.zeros((7, 10, 3), np.uint8)}, PPLValueError, r"\(7, 10\)"),
        ({"image": np.zeros((3, 7, 11), np.uint8)}, PPLValueError, "channels last"),
        ({"image": np.zeros((7, 11, 3), np.int32)}, PPLTypeError, "int32"),
        ({"image": np.zeros((2, 7, 11, 3), np.uint8)}, PPLValueError, "both be single or batches"),
        ({"maps": np.full((1, 7, 11), np.nan, np.float32)}, PPLValueError, "77 values"),
        ({"dilations": ()}, PPLValueError, "dilations"),
        ({"dilations": (0,)}, PPLValueError, "dilations"),
        ({"iterations": -1}, PPLValueError, "iterations=-1"),
    ],
)
def test_bad_input_is_named(scene, change, error, words):
    arguments = {"image": scene[0], "maps": scene[1], **change}
    with pytest.raises(error, match=words):
        pixel_adaptive(**arguments)
