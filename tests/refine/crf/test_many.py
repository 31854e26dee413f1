"""`crf_many`: order, laziness, threads, errors."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch

from ppl.errors import PPLTypeError, PPLValueError
from ppl.refine.crf import crf, crf_many, torch_engine


def problem(seed: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    size = (10 + seed, 12)
    return random.integers(0, 256, (*size, 3), dtype=np.uint8), random.dirichlet((1, 1), size).transpose(2, 0, 1)


def test_equals_one_after_the_other_in_order():
    problems = [problem(seed) for seed in range(9)]
    results = list(crf_many((p[0] for p in problems), (p[1] for p in problems), num_workers=3, iterations=2))
    for (image, probs), result in zip(problems, results, strict=True):
        np.testing.assert_array_equal(result, crf(image, probs, iterations=2))


def test_takes_no_more_images_than_it_needs():
    taken = []

    def images():
        for seed in range(50):
            taken.append(seed)
            yield problem(seed)[0]

    results = crf_many(images(), (problem(seed)[1] for seed in range(50)), num_workers=2, iterations=1)
    assert not taken
    next(results)
    assert len(taken) <= 5
    results.close()
    assert len(taken) <= 5


def test_functions_are_called_in_the_worker_threads():
    names = set()

    def image():
        names.add(threading.current_thread().name)
        return problem(1)[0]

    list(crf_many([image] * 4, [problem(1)[1]] * 4, num_workers=2, iterations=1))
    assert names and all(name.startswith("crf") for name in names)


def test_labels_energies_and_features_may_be_mapped():
    image = problem(2)[0]
    labels = np.zeros(image.shape[:2], np.int64)
    results = crf_many([image], labels=[labels], num_labels=3, iterations=1)
    np.testing.assert_array_equal(next(results), crf(image, labels=labels, num_labels=3, iterations=1))
    unary, features = -np.log(problem(2)[1]), image[..., :1].astype(np.float32)
    results = crf_many([image], unary=[unary], features=[lambda: features], preset="irn", iterations=1)
    np.testing.assert_array_equal(next(results), crf(image, unary=unary, features=features, preset="irn", iterations=1))


def test_a_bad_image_raises_when_its_turn_comes():
    image, probs = problem(0)
    results = crf_many([image, image[:3]], [probs, probs], num_workers=2)
    next(results)
    with pytest.raises(PPLValueError, match="but the image is 3x12"):
        next(results)


def test_unequal_numbers_are_an_error():
    image, probs = problem(0)
    with pytest.raises(PPLValueError, match="there are 1 maps but more of the other"):
        list(crf_many([image, image], [probs], iterations=1))


def test_images_before_an_error_of_the_source_have_their_turn():
    image, probs = problem(0)
    done = []
    with pytest.raises(PPLValueError, match="there are 3 maps"):
        done.extend(crf_many([image] * 5, [probs] * 3, num_workers=4, iterations=1))
    assert len(done) == 3


@pytest.mark.parametrize(("workers", "error"), [(0, PPLValueError), (1.5, PPLTypeError), (True, PPLTypeError)])
def test_workers_are_checked_before_any_work(workers, error):
    with pytest.raises(error, match="workers"):
        crf_many([], [], num_workers=workers)


def mixed_problems() -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Images of several sizes with several numbers of labels, one of them certain."""
    random = np.random.default_rng(7)
    sizes = [(2, 20, 21), (5, 33, 9), (3, 1, 1), (1, 8, 9), (2, 20, 21), (4, 16, 30), (3, 25, 5)]
    images = [torch.tensor(random.integers(0, 256, (h, w, 3), dtype=np.uint8)) for _, h, w in sizes]
    maps = [torch.tensor(random.dirichlet([0.5] * n, (h, w)).transpose(2, 0, 1)) for n, h, w in sizes]
    maps[5] = torch.cat([maps[5], torch.zeros_like(maps[5][:2])])  # two labels are absent
    return images, maps


@pytest.mark.parametrize(
    "settings", [{}, {"preset": "irn"}, {"preset": "deeplab"}, {"bilateral_normalization": "none"}]
)
@pytest.mark.parametrize("batch", [1, 3, 100])
def test_batches_equal_single_images(settings, batch):
    images, maps = mixed_problems()
    found = list(crf_many(images, maps, backend="torch", batch_size=batch, num_workers=2, **settings))
    assert len(found) == len(images)
    for image, probs, result in zip(images, maps, found, strict=True):
        alone = crf(image, probs, backend="native", **settings)
        np.testing.assert_allclose(result, alone, atol=5e-4)  # noise has pixels next to a tie


def test_batches_of_labels_equal_single_images():
    images, maps = mixed_problems()
    labels = [probs.argmax(dim=0) for probs in maps]
    settings = {"num_labels": 6, "gt_prob": 0.6, "bilateral_sxy": 50, "bilateral_srgb": 5}
    found = crf_many(images, labels=labels, backend="torch", batch_size=4, **settings)
    for image, indices, result in zip(images, labels, found, strict=True):
        np.testing.assert_allclose(result, crf(image, labels=indices, backend="native", **settings), atol=1e-4)


def test_the_engine_sees_whole_batches(monkeypatch):
    counts = []
    whole = torch_engine.mean_field_batch
    monkeypatch.setattr(
        torch_engine, "mean_field_batch", lambda problems: counts.append(len(problems)) or whole(problems)
    )
    images, maps = mixed_problems()
    images, maps = images[:3] + images[4:], maps[:3] + maps[4:]
    assert len(list(crf_many(images, maps, backend="torch", batch_size=4))) == 6
    assert counts == [4, 2]


def test_a_bad_image_in_a_batch_raises_when_its_turn_comes():
    images, maps = mixed_problems()
    maps[2] = maps[2] * 2
    done = crf_many(images, maps, backend="torch", batch_size=5)
    assert [next(done).shape for _ in range(2)] == [(2, 20, 21), (5, 33, 9)]
    with pytest.raises(PPLValueError, match="must sum to 1"):
        next(done)
