"""Torch data sets of pairs (image, target), and training on them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, TensorDataset

from ppl.data import PairImages
from ppl.errors import PPLTypeError, PPLValueError
from ppl.models import create_model
from ppl.train import TrainConfig, fit

CLASSES = ("cat", "dog", "owl")
PIXELS = torch.zeros(3, 8, 8)


@pytest.mark.parametrize(
    ("target", "labels"),
    [
        (2, (2,)),
        (np.int64(1), (1,)),
        (torch.tensor(0), (0,)),
        ("owl", (2,)),
        (["owl", "cat"], (0, 2)),
        ([2, 0], (0, 2)),
        (np.array([1]), (1,)),
        ([], ()),
        ([0.0, 1.0, 1.0], (1, 2)),
        (torch.tensor([True, False, False]), (0,)),
        (torch.zeros(3), ()),
    ],
)
def test_targets_of_every_kind_are_class_indices(target, labels):
    assert PairImages([(PIXELS, target)], CLASSES)[0].labels == labels


@pytest.mark.parametrize(
    ("item", "error", "told"),
    [
        ((PIXELS, 3), PPLValueError, r"class 3 is outside 0\.\.2"),
        ((PIXELS, "ow"), PPLValueError, "no class 'ow'; did you mean 'owl'"),
        ((PIXELS, [0, 1, 1]), PPLValueError, "class indices, or a 0 or 1 for each class"),
        ((PIXELS, [0.0, 1.0]), PPLValueError, "a row has 3 zeros and ones"),
        ((PIXELS, {"boxes": 1}), PPLTypeError, "give a class index, a list"),
        (PIXELS, PPLTypeError, "is no pair"),
        ((PIXELS.byte(), 1), PPLTypeError, r"is a Tensor \(3, 8, 8\) torch.uint8: give a PIL image"),
    ],
)
def test_items_that_cannot_be_understood_are_named(item, error, told):
    with pytest.raises(error, match=told):
        PairImages([item], CLASSES)[0]


def test_tensors_of_two_sizes_are_named():
    pairs = PairImages([(PIXELS, 0), (torch.zeros(3, 9, 8), 0)], CLASSES)
    with pytest.raises(PPLValueError, match=r"\(3, 9, 8\), and another one is \(3, 8, 8\)"):
        list(pairs)


def settings(**options):
    return TrainConfig(epochs=4, batch_size=4, size=(64, 64), num_workers=0, lr=3e-3, **options)


def test_a_classifier_learns_from_tensors_and_from_pictures(tmp_path):
    torch.manual_seed(0)
    x = 0.1 * torch.randn(12, 3, 64, 64)
    for number in range(12):
        x[number, number % 3] += 1
    tensors = TensorDataset(x, torch.arange(12) % 3)
    pictures = [(Image.fromarray(((image + 1) * 100).byte().permute(1, 2, 0).numpy()), int(y)) for image, y in tensors]
    for name, data in (("tensors", tensors), ("pictures", pictures)):
        model = create_model("test_resnet", ["red", "green", "blue"], mode="baseline", pretrained=False)
        summary = fit(model, data, data, settings(), tmp_path / name, progress=False)
        assert model.classes == ("red", "green", "blue")
        assert summary.history[-1]["loss"] < summary.history[0]["loss"]
        assert summary.history[-1]["val_mAP"] is not None


@pytest.mark.parametrize(
    ("images", "told"),
    [("a/path", "got 'a/path'"), (7, "got 7"), (DataLoader([(PIXELS, 0)]), r"pass loader\.dataset")],
)
def test_what_is_no_data_set_is_refused(images, told, tmp_path):
    model = create_model("test_resnet", 3, mode="baseline", pretrained=False)
    with pytest.raises(PPLTypeError, match=told):
        fit(model, images, None, settings(), tmp_path)


def test_pixels_that_are_no_numbers_are_refused_and_those_that_are_not_normalised_a_warning():
    pairs = PairImages([(torch.full((3, 4, 4), torch.nan), 0), (torch.full((3, 4, 4), 255.0), 1)], ["cat", "dog"])
    with pytest.raises(PPLValueError, match="image 0 of the list holds NaN or infinity"):
        pairs[0]
    with pytest.warns(UserWarning, match=r"tensors of the list hold values above 20: are these pixels of 0\.\.255"):
        pairs[1]


def test_paths_are_read_and_names_may_stand_in_one_text(tmp_path):
    Image.new("RGB", (5, 4), (1, 2, 3)).save(tmp_path / "a.png")
    (pair,) = PairImages([(tmp_path / "a.png", "dog; cat")], ["cat", "cow", "dog"])
    assert pair.image.getpixel((0, 0)) == (1, 2, 3) and pair.labels == (0, 2)


@pytest.mark.parametrize("shape", [(4, 5, 5), (3, 4, 5), (4, 5, 2)])
def test_arrays_of_other_bands_are_named_with_the_forms_that_are_understood(shape):
    with pytest.raises(PPLTypeError, match=r"image 0 of the list is a ndarray .*uint8: give a PIL image"):
        PairImages([(np.zeros(shape, np.uint8), 0)], ["cat"])[0]
