"""The torch engine against the native engine, which test_agreement.py compares with pydensecrf."""

from __future__ import annotations

import numpy as np
import pytest
import skimage.data
import torch

from ppl.refine.crf import crf, crf_many, torch_engine


def problem(labels: int, height: int, width: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    top, left = random.integers(0, 100, 2)
    image = skimage.data.astronaut()[top : top + height, left : left + width]
    return np.ascontiguousarray(image), random.dirichlet([0.5] * labels, (height, width)).transpose(2, 0, 1)


@pytest.mark.parametrize("size", [(1, 1), (1, 3), (2, 5), (31, 33), (40, 52)])
@pytest.mark.parametrize("name", ["psa", "irn", "deeplab"])
def test_equals_the_native_engine(size, name):
    image, probs = problem(4, *size)
    unary = -np.log(probs)
    expected = crf(image, unary=unary, backend="native", preset=name)
    np.testing.assert_allclose(crf(image, unary=unary, backend="torch", preset=name), expected, atol=2e-4)


def test_labels_that_occur_nowhere_count_as_many():
    image, probs = problem(2, 30, 31)
    labels = probs.argmax(axis=0) * 3
    expected = crf(image, labels=labels, num_labels=7, backend="native")
    np.testing.assert_allclose(crf(image, labels=labels, num_labels=7, backend="torch"), expected, atol=2e-5)


@pytest.mark.parametrize(
    "settings",
    [
        {"gaussian_sxy": (2, 5), "bilateral_sxy": (20, 60), "bilateral_srgb": (5, 9, 30)},
        {"gaussian_compat": [-1, -2, -3, -4], "bilateral_compat": np.arange(16).reshape(4, 4) % 3 * np.eye(4)},
        {"gaussian_normalization": "before", "bilateral_normalization": "after"},
        {"gaussian_normalization": "none", "bilateral_normalization": "none", "bilateral_compat": 1e-3},
    ],
)
@pytest.mark.parametrize("with_features", [False, True])
def test_equals_the_native_engine_for_all_settings(settings, with_features):
    image, probs = problem(4, 40, 51)
    features = image.astype(np.float32) if with_features else None
    native, found = (crf(image, probs, features=features, backend=name, **settings) for name in ("native", "torch"))
    assert (native.argmax(axis=0) == found.argmax(axis=0)).mean() > 0.999
    assert np.abs(native - found).mean() < 1e-5


def test_images_of_a_batch_do_not_see_each_other():
    problems = [problem(2, 20, 21, 1), problem(5, 33, 9, 2), problem(3, 1, 1, 3)]
    images, maps = zip(*problems, strict=True)
    together = crf_many(images, maps, backend="torch", batch_size=3)
    for image, probs, result in zip(images, maps, together, strict=True):
        np.testing.assert_allclose(result, crf(image, probs, backend="torch"), atol=1e-6)


def test_float64_never_reaches_the_engine(monkeypatch):
    # MPS has no float64.
    def refuse(*arguments, **options):
        tensor = original(*arguments, **options)
        assert tensor.dtype != torch.float64
        return tensor

    original = torch_engine._softmax
    monkeypatch.setattr(torch_engine, "_softmax", refuse)
    torch.set_default_dtype(torch.float64)
    try:
        image, probs = problem(3, 9, 8)
        assert crf(torch.tensor(image), torch.tensor(probs), backend="torch").dtype == torch.float32
        labels = torch.tensor(probs.argmax(axis=0))
        assert crf(torch.tensor(image), labels=labels, backend="torch").dtype == torch.float32
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_stays_on_the_gpu():
    image, probs = problem(3, 40, 50)
    result = crf(torch.tensor(image).cuda(), torch.tensor(probs).cuda())
    assert result.is_cuda
    np.testing.assert_allclose(result.cpu(), crf(image, probs), atol=1e-4)
