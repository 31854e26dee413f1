from __future__ import annotations

import numpy as np
import pytest
import torch

from ppl.cam import generate
from ppl.cam.labels import check_labels
from ppl.errors import PPLTypeError, PPLValueError
from ppl.models import create_model

NAMES = ("cat", "cow", "dog")


def spelled(labels, num_classes=3, classes=NAMES):
    return [row.tolist() for row in check_labels(labels, num_classes, classes)]


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ([["dog", "cat"], ["cow"], []], [[0, 2], [1], []]),
        (["cat;cow", "dog", ""], [[0, 1], [2], []]),
        (["cat; cow ;"], [[0, 1]]),
        (np.array(["dog", "cat;dog"]), [[2], [0, 2]]),
        ([("cat", 2)], [[0, 2]]),
        ([["cat", "cow", "dog"]], [[0, 1, 2]]),
    ],
)
def test_names_are_understood_if_the_model_has_them(labels, expected):
    assert spelled(labels) == expected


@pytest.mark.parametrize("labels", [[["cot"]], ["cat;cot"], [["cat;cow"]]])
def test_unknown_names_are_refused_with_the_nearest(labels):
    with pytest.raises(PPLValueError, match=r"labels\[0\] holds class '.*', which the model lacks.*'ca?o?t'|'cat'"):
        check_labels(labels, 3, NAMES)


def test_names_are_refused_by_a_model_without_names():
    with pytest.raises(PPLTypeError, match="must hold integers, got 'cat': the model does not name its classes"):
        check_labels([["cat"]], 3)
    with pytest.raises(PPLTypeError, match="since the model does not name its classes"):
        check_labels(["cat;cow"], 3)


@pytest.mark.parametrize("make", [torch.tensor, np.array])
def test_arrays_of_indices_are_understood_where_they_cannot_be_zeros_and_ones(make):
    assert spelled(make([[2], [0]]), 3) == [[2], [0]]
    assert spelled(make([[3, 1], [2, 0]]), 5, None) == [[1, 3], [0, 2]]
    assert spelled([make([2, 1]), make([0])], 4, None) == [[1, 2], [0]]


@pytest.mark.parametrize("labels", [np.array([[0], [1]]), np.array([[0, 1], [1, 0]]), np.array([[2.0], [0.0]])])
def test_arrays_that_may_be_either_are_refused(labels):
    with pytest.raises(PPLValueError, match=r"must have shape \(B,5\)"):
        check_labels(labels, 5)


@pytest.mark.parametrize("kind", [list, tuple, np.array, torch.tensor])
def test_rows_of_zeros_and_ones_for_two_classes_are_not_taken_for_indices(kind):
    rows = [kind([1, 0]), kind([0, 1])]
    with pytest.raises(PPLValueError, match=r"labels\[0\] is .*two class indices or a 0/1 row of two classes"):
        check_labels(rows, 2)


def test_both_of_two_classes_are_ascending_indices():
    assert spelled([[0, 1], [1]], 2, None) == [[0, 1], [1]]


def test_a_table_of_zeros_and_ones_for_two_classes_is_one():
    assert spelled(np.array([[1, 0], [0, 1]]), 2, None) == [[0], [1]]
    assert spelled(torch.tensor([[1, 0], [0, 1]]), 2, None) == [[0], [1]]


def test_names_of_a_patch_learning_network_are_labels():
    model = create_model("test_resnet", 3, mode="baseline", pretrained=False)
    model.classes = NAMES
    x = torch.randn(2, 3, 64, 64)
    for found, expected in zip(
        generate(model, x, ["cat;dog", ["cow"]]), generate(model, x, [[0, 2], [1]]), strict=True
    ):
        assert found.classes.tolist() == expected.classes.tolist()
        assert torch.equal(found.maps, expected.maps)


@pytest.mark.parametrize(
    ("labels", "error", "words"),
    [
        (np.array([0, 2]), PPLValueError, r"shape \(2,\) may be .*\[\[index\] for index in labels\]"),
        ([None, [0]], PPLTypeError, r"labels\[0\] is None: write \[\] for an image without classes"),
        ([[True, False, False]], PPLTypeError, r"a row of a 0/1 table: .* torch\.tensor\(labels\)"),
    ],
)
def test_labels_of_other_shapes_are_named_with_the_form_to_write(labels, error, words):
    with pytest.raises(error, match=words):
        check_labels(labels, 3)
