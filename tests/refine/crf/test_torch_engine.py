"""The torch engine against the native one, which test_agreement.py holds against pydensecrf."""

from __future__ import annotations

import numpy as np
import pytest
import skimage.data
import torch

from ppl.refine.crf import PRESETS, crf, crf_from_labels
from ppl.refine.crf.torch_engine import mean_field_batch
from ppl.refine.crf.validation import CRFSettings


def problem(labels: int, height: int, width: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    top, left = random.integers(0, 100, 2)
    image = skimage.data.astronaut()[top : top + height, left : left + width]
    return np.ascontiguousarray(image), random.dirichlet([0.5] * labels, (height, width)).transpose(2, 0, 1)


@pytest.mark.parametrize("size", [(1, 1), (1, 3), (2, 5), (31, 33), (40, 52)])
@pytest.mark.parametrize("name", ["psa", "irn", "deeplab"])
def test_equals_the_native_engine(size, name):
    image, probs = problem(4, *size)
    settings = PRESETS[name].arguments()
    expected = crf(image, probs, backend="native", **settings)
    np.testing.assert_allclose(crf(image, probs, backend="torch", **settings), expected, atol=2e-4)


def test_labels_that_occur_nowhere_count_as_many():
    image, probs = problem(2, 30, 31)
    labels = probs.argmax(axis=0) * 3
    expected = crf_from_labels(image, labels, 7, backend="native")
    np.testing.assert_allclose(crf_from_labels(image, labels, 7, backend="torch"), expected, atol=2e-5)


def test_images_of_a_batch_do_not_see_each_other():
    settings = CRFSettings(**PRESETS["psa"].arguments())
    problems = [problem(2, 20, 21, 1), problem(5, 33, 9, 2), problem(3, 1, 1, 3)]
    images = [image for image, _ in problems]
    unaries = [-np.log(probs).astype(np.float32) for _, probs in problems]
    together = mean_field_batch(images, unaries, settings, [1, 3, 1])
    for image, unary, copies, result in zip(images, unaries, [1, 3, 1], together, strict=True):
        alone = mean_field_batch([image], [unary], settings, [copies])[0]
        np.testing.assert_allclose(result, alone, atol=1e-6)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_stays_on_the_gpu():
    image, probs = problem(3, 40, 50)
    result = crf(torch.tensor(image).cuda(), torch.tensor(probs).cuda())
    assert result.is_cuda
    np.testing.assert_allclose(result.cpu(), crf(image, probs), atol=1e-4)
