from __future__ import annotations

import numpy as np
import pytest
import torch

from ppl.errors import PPLTypeError, PPLValueError
from ppl.metrics import ConfusionMatrix, ThresholdSweep


def images(count=4, classes=3, seed=0):
    """Yield targets of several sizes, maps of their classes (none in the second image), and the classes."""
    rng = np.random.default_rng(seed)
    for i in range(count):
        shape = (9 + i, 14 - i)
        present = np.sort(rng.choice(classes, size=i % (classes + 1), replace=False))
        target = np.where(rng.random(shape) < 0.1, 255, rng.integers(0, classes + 1, shape))
        yield target, (rng.integers(0, 101, (len(present), *shape)) / 100).astype(np.float32), present


def brute_force(threshold, **options):
    confusion = ConfusionMatrix(4)
    for target, maps, present in images(**options):
        background = np.full((1, *target.shape), threshold, np.float32)
        winner = np.concatenate([background, maps]).argmax(0)
        confusion.update(target, np.concatenate([[0], present + 1])[winner])
    return confusion


def test_it_equals_a_loop_over_thresholds():
    sweep = ThresholdSweep(4)
    for image in images():
        sweep.update(*image)
    matrices = sweep.confusions()
    loop = [brute_force(t / 100) for t in range(100)]
    assert torch.equal(matrices, torch.stack([confusion.counts[:, :4] for confusion in loop]))
    miou = [confusion.compute()["miou"] for confusion in loop]
    assert np.allclose(sweep.miou(), miou)
    assert sweep.best() == np.argmax(miou) / 100
    assert sweep.scores()["miou"] == pytest.approx(max(miou))
    assert sweep.scores(0.3)["miou"] == pytest.approx(miou[30])


def test_own_thresholds_and_torch_input():
    sweep = ThresholdSweep(4, [0.25, 0.5])
    for target, maps, present in images():
        sweep.update(torch.from_numpy(target), torch.from_numpy(maps), torch.from_numpy(present))
    assert torch.equal(sweep.confusions()[1], brute_force(0.5).counts[:, :4])


def test_a_value_on_the_threshold_is_background():
    sweep = ThresholdSweep(2, [0.5])
    sweep.update([[1, 1]], [[[0.5, 0.50001]]], [0])
    assert sweep.confusions()[0].tolist() == [[0, 0], [1, 1]]


def test_merging():
    whole, parts = ThresholdSweep(4), [ThresholdSweep(4), ThresholdSweep(4)]
    for i, image in enumerate(images()):
        whole.update(*image)
        parts[i % 2].update(*image)
    parts[0].merge(parts[1])
    assert torch.equal(parts[0].counts, whole.counts)
    with pytest.raises(ValueError, match="different classes"):
        whole.merge(ThresholdSweep(4, [0.5]))


def test_bad_input():
    sweep = ThresholdSweep(3)
    target, maps = np.zeros((2, 2), int), np.zeros((1, 2, 2))
    with pytest.raises(ValueError, match=r"maps \(1, 2, 2\), classes \(2,\), target \(2, 2\)"):
        sweep.update(target, maps, [0, 1])
    with pytest.raises(ValueError, match="classes holds 2"):
        sweep.update(target, maps, [2])
    with pytest.raises(ValueError, match="NaN"):
        sweep.update(target, maps * np.nan, [0])
    with pytest.raises(ValueError, match=r"a map holds 255: .* by 255"):
        sweep.update(target, maps + 255, [0])
    with pytest.raises(ValueError, match="no scored pixel"):
        sweep.best()
    sweep.update(target, maps, [0])
    with pytest.raises(ValueError, match=r"0\.123 was not swept; the nearest one is 0\.12"):
        sweep.scores(0.123)
    with pytest.raises(ValueError, match="rising"):
        ThresholdSweep(3, [0.5, 0.2])
    with pytest.raises(ValueError, match="num_classes is 1"):
        ThresholdSweep(1)


def test_a_class_below_zero_is_refused_and_no_class_is_background():
    sweep = ThresholdSweep(3, [0.1, 0.5])
    with pytest.raises(PPLValueError, match=r"classes holds -1; indices are 0\.\.1"):
        sweep.update([[1, 2]], [[[0.9, 0.9]]], [-1])
    sweep.update([[1, 2]], np.zeros((0, 1, 2)), [])
    assert sweep.counts.sum() == 2
    np.testing.assert_array_equal(sweep.scores(0.1)["iou"], [0, 0, 0])


def test_any_memory_layout_of_numpy_counts_the_same_and_objects_are_refused():
    plain, other = ThresholdSweep(4), ThresholdSweep(4)
    for target, maps, present in images():
        plain.update(target, maps, present)
        other.update(target[::-1].astype(">i4"), maps[:, ::-1].astype(">f4"), present[::-1][::-1].astype(">i8"))
    assert torch.equal(plain.counts, other.counts)
    with pytest.raises(PPLTypeError, match="maps is None"):
        plain.update([[1]], None, [0])


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_threshold_that_is_not_finite_is_refused(value):
    with pytest.raises(PPLValueError, match="finite"):
        ThresholdSweep(3, [value])


def test_the_best_threshold_is_the_given_one_however_small():
    sweep = ThresholdSweep(2, [1e-8, 1e-7, 0.1])
    sweep.update([[0, 1]], [[[5e-8, 2e-7]]], [0])
    assert sweep.best() == 1e-7
    assert sweep.scores()["miou"] == 1.0


def test_the_ignored_value_is_no_class():
    with pytest.raises(PPLValueError, match="ignore_index 255 is one of the 400 classes"):
        ThresholdSweep(400)
