"""Means and votes within segments against a loop over the segments."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from skimage import segmentation

from ppl.errors import PPLTypeError, PPLValueError
from ppl.refine import superpixel_segments, superpixels


@pytest.fixture
def scene():
    random = np.random.default_rng(0)
    blocks = random.integers(0, 256, (5, 6, 3)).repeat(8, axis=0).repeat(9, axis=1)
    image = np.clip(blocks + random.normal(0, 8, blocks.shape), 0, 255).astype(np.uint8)
    return image, random.random((3, *image.shape[:2])).astype(np.float32)


@pytest.mark.parametrize("method", ["slic", "felzenszwalb"])
def test_mean_within_segments(scene, method):
    image, maps = scene
    segments = superpixel_segments(image, method=method, n_segments=30)
    expected = np.empty_like(maps)
    for number in np.unique(segments):
        inside = segments == number
        for k in range(len(maps)):
            expected[k][inside] = maps[k][inside].mean()
    np.testing.assert_allclose(superpixels(image, maps, method=method, n_segments=30), expected, atol=1e-6)


@pytest.mark.parametrize("method", ["slic", "felzenszwalb"])
def test_votes_within_segments(scene, method):
    image, maps = scene
    refined = superpixels(image, maps, method=method, mode="vote", n_segments=30)
    segments, winners = superpixel_segments(image, method=method, n_segments=30), maps.argmax(axis=0)
    for number in np.unique(segments):
        inside = segments == number
        shares = np.array([(winners[inside] == k).mean() for k in range(len(maps))])
        np.testing.assert_allclose(refined[:, inside], shares[:, None].repeat(inside.sum(), axis=1), atol=1e-6)
    np.testing.assert_allclose(refined.sum(axis=0), 1, atol=1e-6)


def test_segments_are_scikit_images(scene):
    image, _ = scene
    expected = segmentation.slic(image / 255.0, n_segments=30, compactness=10, sigma=0.5, start_label=0)
    ours = superpixel_segments(image, n_segments=30)
    pairs = np.unique(np.stack([expected.ravel(), ours.ravel()]), axis=1)
    assert pairs.shape[1] == len(np.unique(expected)) == ours.max() + 1  # the same partition, numbered without gaps


def test_torch_in_torch_out(scene):
    image, maps = scene
    refined = superpixels(torch.from_numpy(image), torch.from_numpy(maps).half())
    assert isinstance(refined, torch.Tensor) and refined.dtype == torch.float16
    np.testing.assert_allclose(refined.float().numpy(), superpixels(image, maps), atol=2e-3)


@pytest.mark.parametrize("method", ["slic", "felzenszwalb"])
@pytest.mark.parametrize("size", [(1, 1), (1, 9), (5, 2)])
def test_tiny_images(method, size):
    refined = superpixels(np.zeros((*size, 3), np.uint8), np.full((2, *size), 0.5, np.float32), method=method)
    np.testing.assert_allclose(refined, 0.5)


@pytest.mark.parametrize("size", [(0, 4), (3, 0)])
def test_empty_images(size):
    assert superpixels(np.zeros((*size, 3), np.uint8), np.zeros((2, *size), np.float32)).shape == (2, *size)


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"method": "slick"}, PPLValueError, "method='slick'"),
        ({"mode": "max"}, PPLValueError, "mode='max'"),
        ({"sigma": np.inf}, PPLValueError, "sigma=inf"),
        ({"compactness": np.inf}, PPLValueError, "compactness=inf"),
        ({"scale": np.nan}, PPLValueError, "scale=nan"),
        ({"n_segments": 0}, PPLValueError, "n_segments=0"),
        ({"image": np.zeros((4, 4, 3), np.uint8)}, PPLValueError, r"\(4, 4\)"),
        ({"image": np.zeros((40, 54), np.uint8)}, PPLValueError, "channels last"),
        ({"maps": np.zeros((2, 40, 54), np.int64)}, PPLTypeError, "int64"),
    ],
)
def test_bad_input_is_named(scene, change, error, words):
    with pytest.raises(error, match=words):
        superpixels(**{"image": scene[0], "maps": scene[1], **change})
