from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from ppl.errors import PPLTypeError
from ppl.metrics import ConfusionMatrix, scores_of


def pair(seed=0, classes=5, shape=(3, 17, 23), ignored=0.1):
    rng = np.random.default_rng(seed)
    target = rng.integers(0, classes, shape)
    prediction = np.where(rng.random(shape) < 0.6, target, rng.integers(0, classes, shape))
    return np.where(rng.random(shape) < ignored, 255, target), prediction


def test_it_agrees_with_scikit_learn():
    from sklearn.metrics import confusion_matrix, jaccard_score, precision_recall_fscore_support

    target, prediction = pair()
    confusion = ConfusionMatrix(5)
    for truth, guess in zip(target, prediction, strict=True):
        confusion.update(truth, guess)
    keep = target != 255
    truth, guess = target[keep], prediction[keep]
    assert np.array_equal(confusion.counts[:, :5], confusion_matrix(truth, guess))
    scores = confusion.compute()
    assert np.allclose(scores["iou"], jaccard_score(truth, guess, average=None))
    assert scores["miou"] == pytest.approx(jaccard_score(truth, guess, average="macro"))
    precision, recall, dice, _ = precision_recall_fscore_support(truth, guess)
    for name, expected in {"precision": precision, "recall": recall, "dice": dice}.items():
        assert np.allclose(scores[name], expected)
    assert scores["mean_recall"] == pytest.approx(recall.mean())
    assert scores["accuracy"] == pytest.approx((truth == guess).mean())


def test_it_agrees_with_torchmetrics_when_a_class_is_absent():
    from torchmetrics.classification import MulticlassJaccardIndex

    target, prediction = pair(classes=4)
    target[target == 2], prediction[prediction == 2] = 0, 0
    confusion = ConfusionMatrix(6)
    confusion.update(target, prediction)
    other = MulticlassJaccardIndex(6, ignore_index=255, average="macro")
    other.update(torch.from_numpy(prediction), torch.from_numpy(target))
    assert confusion.compute()["miou"] == pytest.approx(other.compute().item(), abs=1e-6)


def test_an_absent_class_is_nan_and_left_out_but_a_false_positive_counts():
    confusion = ConfusionMatrix(4)
    confusion.update(torch.tensor([0, 0, 1, 1]), torch.tensor([0, 2, 1, 1]))
    scores = confusion.compute()
    assert scores["iou"][:3].tolist() == [0.5, 1.0, 0.0]
    assert math.isnan(scores["iou"][3])
    assert scores["miou"] == 0.5
    assert math.isnan(scores["recall"][2])
    assert scores["precision"][2] == 0


def test_scores_are_of_the_data_set_and_not_means_over_images():
    confusion = ConfusionMatrix(2)
    confusion.update([0] * 90 + [1] * 10, [0] * 90 + [1] * 10)
    confusion.update([1] * 2, [0] * 2)
    assert confusion.compute()["iou"].tolist() == [90 / 92, 10 / 12]


def test_a_pixel_predicted_as_ignore_is_a_miss():
    confusion = ConfusionMatrix(2)
    confusion.update([0, 1, 1, 255], [0, 255, 1, 255])
    scores = confusion.compute()
    assert scores["iou"].tolist() == [1.0, 0.5]
    assert scores["precision"].tolist() == [1.0, 1.0]
    assert scores["accuracy"] == pytest.approx(2 / 3)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.int64, np.uint8, np.int16, bool])
def test_integer_types(dtype):
    values = np.array([[0, 1], [1, 1]])
    given = torch.from_numpy(values).to(dtype) if isinstance(dtype, torch.dtype) else values.astype(dtype)
    confusion = ConfusionMatrix(2)
    confusion.update(given, given)
    assert confusion.counts.dtype == torch.int64
    assert confusion.counts[:, :2].tolist() == [[1, 0], [0, 3]]


def test_merging_is_the_same_as_counting_everything():
    target, prediction = pair()
    whole, left, right = ConfusionMatrix(5), ConfusionMatrix(5), ConfusionMatrix(5)
    whole.update(target, prediction)
    left.update(target[:1], prediction[:1])
    right.update(target[1:], prediction[1:])
    left.merge(right)
    assert torch.equal(left.counts, whole.counts)
    left.reset()
    assert left.counts.sum() == 0
    with pytest.raises(ValueError, match=r"\(4, 255\) into \(5, 255\)"):
        whole.merge(ConfusionMatrix(4))


def test_large_counts_stay_exact():
    confusion = ConfusionMatrix(2)
    confusion.counts[0, 0] = 2**53
    confusion.update([0], [0])
    assert confusion.counts[0, 0] == 2**53 + 1


def test_nothing_counted():
    confusion = ConfusionMatrix(3)
    assert math.isnan(confusion.compute()["miou"])
    confusion.update(np.full((4, 4), 255), np.zeros((4, 4), int))
    confusion.update(np.zeros((0, 4), int), np.zeros((0, 4), int))
    assert math.isnan(confusion.compute()["accuracy"])


@pytest.mark.parametrize(
    ("target", "prediction", "error", "words"),
    [
        (np.zeros((2, 2), int), np.zeros((2, 3), int), ValueError, r"\(2, 2\) and \(2, 3\)"),
        ([0, 3], [0, 0], ValueError, r"target holds 3; indices are 0\.\.2"),
        ([0, 0], [0, -1], ValueError, "prediction holds -1"),
        ([0.0], [0], TypeError, "float64"),
    ],
)
def test_bad_input(target, prediction, error, words):
    with pytest.raises(error, match=words):
        ConfusionMatrix(3).update(target, prediction)


def test_bad_construction():
    with pytest.raises(ValueError, match="num_classes is 0"):
        ConfusionMatrix(0)
    with pytest.raises(ValueError, match="ignore_index 0"):
        ConfusionMatrix(3, ignore_index=0)
    with pytest.raises(ValueError, match=r"\(2, 4\)"):
        scores_of(torch.zeros(2, 4))


def read_only(array):
    array = array.copy()
    array.flags.writeable = False
    return array


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("made", [lambda a: a.astype(">i4"), lambda a: a[::-1].copy()[::-1], read_only])
def test_any_memory_layout_of_numpy_counts_the_same(made):
    target, prediction = pair()
    plain, other = ConfusionMatrix(5), ConfusionMatrix(5)
    plain.update(target, prediction)
    other.update(made(target), made(prediction))
    assert torch.equal(plain.counts, other.counts)


@pytest.mark.parametrize("value", [None, "text", ["a", "b"], np.array([1, None]), [[1, 2], [3]], [1j]])
def test_input_that_is_not_an_array_of_numbers_is_refused_by_name(value):
    with pytest.raises(PPLTypeError, match=r"prediction (is|holds)"):
        ConfusionMatrix(5).update([1], value)
