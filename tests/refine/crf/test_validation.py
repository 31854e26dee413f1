"""What `crf` refuses, with which words, and what it accepts."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
import torch

from ppl.errors import PPLTypeError, PPLValueError
from ppl.refine.crf import PRESETS, CrfConfig, crf

IMAGE = np.zeros((4, 5, 3), np.uint8)
PROBS = np.full((2, 4, 5), 0.5, np.float32)
LABELS = np.zeros((4, 5), np.int64)


def with_value(value: float, at: tuple[int, int, int] = (1, 2, 3)) -> np.ndarray:
    probs = PROBS.copy()
    probs[at] = value
    return probs


@pytest.mark.parametrize(
    ("image", "probs", "error", "message"),
    [
        ("picture.jpg", PROBS, PPLTypeError, "image must be a numpy array or a torch tensor, got str"),
        (IMAGE, [[0.5]], PPLTypeError, "probs must be a numpy array or a torch tensor, got list"),
        (IMAGE.astype(np.float32), PROBS, PPLTypeError, "image must be uint8 .* got float32"),
        (IMAGE[..., 0], PROBS, PPLValueError, r"image must have shape \(H, W, 3\), got \(4, 5\)"),
        (IMAGE.transpose(2, 0, 1), PROBS, PPLValueError, "move the channels last"),
        (IMAGE[:0], PROBS[:, :0], PPLValueError, "image is empty"),
        (IMAGE, PROBS[0], PPLValueError, r"probs must have shape \(L, H, W\), got \(4, 5\)"),
        (IMAGE, PROBS[:0], PPLValueError, "probs holds no label"),
        (IMAGE, PROBS[:, :3], PPLValueError, "probs is 3x5 but the image is 4x5"),
        (IMAGE, PROBS.astype(np.int64), PPLTypeError, "floating point, got int64; pass label maps as labels="),
        (IMAGE, PROBS.astype(np.complex64), PPLTypeError, "floating point, got complex64"),
        (IMAGE, with_value(np.nan), PPLValueError, r"1 values that are NaN or infinite, the first at \(1, 2, 3\)"),
        (IMAGE, with_value(np.inf), PPLValueError, "1 values that are NaN or infinite"),
        (IMAGE, with_value(0.9), PPLValueError, r"must sum to 1 over the labels, but sum to 1.4 at pixel \(2, 3\)"),
        (IMAGE, with_value(-0.5), PPLValueError, r"negative values, down to -0.5 at \(1, 2, 3\)"),
        (IMAGE, np.zeros_like(PROBS), PPLValueError, "must sum to 1"),
    ],
)
def test_bad_arrays_are_refused_in_one_line(image, probs, error, message):
    with pytest.raises(error, match=message) as caught:
        crf(image, probs)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"iterations": -1}, "iterations: .* greater than or equal to 0 .*-1"),
        ({"iterations": 2.5}, "iterations: .* valid integer .*2.5"),
        ({"iterations": True}, "iterations: .* valid integer .*True"),
        ({"gaussian_sxy": 0}, "gaussian_sxy: must be positive, got 0"),
        ({"gaussian_sxy": (1, 2, 3)}, "gaussian_sxy must be a number or 2 numbers, one for each axis, got 3"),
        ({"gaussian_sxy": ()}, "gaussian_sxy: must be a number or one number for each axis"),
        ({"bilateral_sxy": -3}, "bilateral_sxy: must be finite and not negative and at most 1e.06, got -3"),
        ({"bilateral_sxy": (3, 0)}, "bilateral_sxy: must be positive, got 0"),
        ({"bilateral_srgb": float("nan")}, "bilateral_srgb: must be finite"),
        ({"bilateral_srgb": float("inf")}, "bilateral_srgb: must be finite"),
        ({"bilateral_srgb": "13"}, "bilateral_srgb: must be a number, got '13'"),
        ({"bilateral_srgb": (1, 2)}, "bilateral_srgb must be a number or 3 numbers, one for each axis, got 2"),
        ({"bilateral_compat": -1}, "bilateral_compat: must be finite and not negative"),
        ({"bilateral_compat": [1, 2, 3]}, "bilateral_compat is for 3 labels, but the maps have 2"),
        ({"bilateral_compat": [[1, 2]]}, "bilateral_compat: .* square matrix"),
        ({"bilateral_compat": [[0, 2], [1, 0]]}, "bilateral_compat: must be symmetric"),
        ({"gaussian_compat": [[0, float("nan")], [1, 0]]}, "gaussian_compat: must be finite"),
        ({"gaussian_normalization": "both"}, "gaussian_normalization: .*'symmetric', 'before', 'after' or 'none'"),
        ({"bilateral_sxy": 1e12}, "at most 1e.06"),
        ({"bilateral_srgb": 1e-6}, "bilateral_srgb=1e-06 is too small for an image of 4x5; 0.143 is"),
        ({"bilateral_sxy": 1e-6}, "bilateral_sxy=1e-06 is too small"),
        ({"gaussian_sxy": 1e-6}, "gaussian_sxy=1e-06 is too small"),
        ({"backend": "cuda"}, "no CRF backend named 'cuda'; use one of: auto, "),
    ],
)
def test_bad_settings_are_refused_by_name(arguments, message):
    with pytest.raises(PPLValueError, match=message):
        crf(IMAGE, PROBS, **arguments)


@pytest.mark.parametrize(
    ("labels", "num_labels", "gt_prob", "error", "message"),
    [
        (LABELS + 2, 2, 0.7, PPLValueError, r"labels must lie in 0..1, found 2"),
        (LABELS + 255, 21, 0.7, PPLValueError, "replace ignored pixels"),
        (LABELS - 1, 2, 0.7, PPLValueError, "found -1"),
        (LABELS.astype(float), 2, 0.7, PPLTypeError, "labels must be integers, got float64"),
        (LABELS[None], 2, 0.7, PPLValueError, r"labels must have shape \(H, W\)"),
        (LABELS[:2], 2, 0.7, PPLValueError, "labels is 2x5 but the image is 4x5"),
        (LABELS, 0, 0.7, PPLValueError, "num_labels must be at least 1"),
        (LABELS, 2.0, 0.7, PPLTypeError, "num_labels must be an int"),
        (LABELS, 10**9, 0.7, PPLValueError, "num_labels must be at most 65536"),
        (LABELS + 255, None, 0.7, PPLValueError, "labels hold 255, and num_labels is not given"),
        (LABELS, 2, 1.0, PPLValueError, "gt_prob: .* less than 1 .*1.0"),
        (LABELS, 2, 0, PPLValueError, "gt_prob: .* greater than 0"),
        (LABELS, 2, None, PPLValueError, "gt_prob: .* valid number"),
    ],
)
def test_bad_labels_are_refused(labels, num_labels, gt_prob, error, message):
    with pytest.raises(error, match=message):
        crf(IMAGE, labels=labels, num_labels=num_labels, gt_prob=gt_prob)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "exactly one of probs, labels and unary, got none"),
        ({"probs": PROBS, "labels": LABELS}, "exactly one of probs, labels and unary, got probs and labels"),
        ({"labels": LABELS, "unary": PROBS}, "got labels and unary"),
        ({"probs": PROBS, "num_labels": 2}, "num_labels=2 goes with labels; probs tell the number of labels"),
        ({"probs": PROBS, "preset": "inr"}, "no CRF preset named 'inr'; did you mean 'irn'"),
        ({"unary": PROBS.reshape(2, -1)}, r"shape \(L, H, W\), got \(2, 20\); call .reshape\(2, 4, 5\)"),
        ({"unary": with_value(np.nan)}, r"unary holds 1 values that are NaN or infinite, the first at \(1, 2, 3\)"),
        ({"probs": PROBS, "features": np.zeros((4, 5))}, r"features must have shape \(H, W, C\)"),
        ({"probs": PROBS, "features": np.zeros((3, 5, 1))}, "features are 3x5 but the image is 4x5"),
        ({"probs": PROBS, "features": np.full((4, 5, 1), np.inf)}, "features holds 20 values that are NaN or infinite"),
        ({"probs": PROBS, "features": np.full((4, 5, 1), 1e9)}, "bilateral_srgb=13 is too small"),
    ],
)
def test_combinations_that_cannot_work_are_refused(arguments, message):
    with pytest.raises(PPLValueError, match=message):
        crf(IMAGE, **arguments)


def test_the_number_of_labels_is_the_highest_label_plus_one():
    labels = LABELS.copy()
    labels[0, 0] = 2
    np.testing.assert_array_equal(crf(IMAGE, labels=labels), crf(IMAGE, labels=labels, num_labels=3))


def test_given_settings_win_over_the_preset_even_if_they_equal_the_default():
    random = np.random.default_rng(0)
    image, probs = (
        random.integers(0, 256, (9, 8, 3), dtype=np.uint8),
        random.dirichlet((1, 1), (9, 8)).transpose(2, 0, 1),
    )
    settings = dict(PRESETS["puzzle"]) | {"iterations": CrfConfig().iterations}
    np.testing.assert_array_equal(
        crf(image, probs, preset="puzzle", iterations=10), crf(image, probs, preset=CrfConfig(**settings))
    )
    assert np.abs(crf(image, probs, preset="puzzle") - crf(image, probs, preset="puzzle", iterations=10)).max() > 1e-3


def test_the_defaults_are_those_of_the_settings_class():
    parameters = inspect.signature(crf).parameters
    shared = set(parameters) & set(CrfConfig.model_fields)
    assert shared == set(CrfConfig.model_fields) - {"energies_from", "source"}
    assert all(parameters[name].default == CrfConfig.model_fields[name].default for name in shared)


def test_numbers_may_be_those_of_numpy():
    arguments = {"iterations": 3, "gaussian_sxy": 2.5, "bilateral_srgb": 9}
    of_numpy = {"iterations": np.int64(3), "gaussian_sxy": np.float32(2.5), "bilateral_srgb": np.int32(9)}
    np.testing.assert_array_equal(crf(IMAGE, PROBS, **of_numpy), crf(IMAGE, PROBS, **arguments))


def test_the_suggested_deviation_is_accepted():
    with pytest.raises(PPLValueError, match="too small") as caught:
        crf(IMAGE, PROBS, bilateral_srgb=1e-6)
    least = float(str(caught.value).split("; ")[1].split()[0])
    assert crf(IMAGE, PROBS, bilateral_srgb=least).shape == PROBS.shape


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, ">f4"])
def test_any_float_any_layout_read_only_or_not(dtype):
    random = np.random.default_rng(0)
    image = random.integers(0, 256, (5, 4, 3), dtype=np.uint8).transpose(1, 0, 2)
    probs = random.dirichlet((1, 1), (5, 4)).astype(dtype).transpose(2, 1, 0)
    expected = crf(np.ascontiguousarray(image), np.ascontiguousarray(probs))
    image.setflags(write=False)
    probs.setflags(write=False)
    before = image.copy(), probs.copy()
    np.testing.assert_array_equal(crf(image, probs), expected)
    np.testing.assert_array_equal(image, before[0])
    np.testing.assert_array_equal(probs, before[1])


@pytest.mark.parametrize("backend", ["native", "torch"])
def test_every_engine_takes_another_byte_order(backend):
    probs = np.random.default_rng(0).dirichlet((1, 1), (4, 5)).transpose(2, 0, 1)
    refined = crf(IMAGE, probs.astype(">f4"), backend=backend)
    np.testing.assert_array_equal(refined, crf(IMAGE, probs.astype("<f4"), backend=backend))
    labels = crf(IMAGE, labels=(LABELS + 1).astype(">i4"), num_labels=2, backend=backend)
    np.testing.assert_array_equal(labels, crf(IMAGE, labels=LABELS + 1, num_labels=2, backend=backend))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_torch_in_torch_out(dtype):
    probs = torch.tensor(PROBS, dtype=dtype, requires_grad=True)
    refined = crf(torch.tensor(IMAGE), probs)
    assert isinstance(refined, torch.Tensor)
    assert (refined.dtype, refined.device, refined.requires_grad) == (torch.float32, probs.device, False)
    labels = crf(torch.tensor(IMAGE), labels=torch.tensor(LABELS), num_labels=2)
    assert isinstance(labels, torch.Tensor)


@pytest.mark.parametrize("backend", ["native", "torch"])
@pytest.mark.parametrize("given", ["probs", "labels", "unary"])
def test_each_way_to_give_maps_returns_their_kind_of_array(backend, given):
    random = np.random.default_rng(0)
    image = random.integers(0, 256, (4, 5, 3), dtype=np.uint8)
    probs = random.dirichlet((1, 1), (4, 5)).transpose(2, 0, 1)
    maps = {"probs": probs, "labels": probs.argmax(axis=0), "unary": -np.log(probs)}[given]
    features = image.astype(np.float32)
    of_numpy = crf(image, features=features, backend=backend, **{given: maps})
    of_torch = crf(torch.tensor(image), features=torch.tensor(features), backend=backend, **{given: torch.tensor(maps)})
    assert isinstance(of_numpy, np.ndarray) and isinstance(of_torch, torch.Tensor)
    assert of_numpy.dtype == np.float32 and of_torch.dtype == torch.float32
    np.testing.assert_array_equal(of_torch.numpy(), of_numpy)


def test_features_take_the_place_of_the_image():
    features = np.zeros((4, 5, 2))
    np.testing.assert_array_equal(crf(None, PROBS, features=features), crf(IMAGE, PROBS, features=features))
    with pytest.raises(PPLTypeError, match="image must be a numpy array or a torch tensor, got NoneType"):
        crf(None, PROBS)
