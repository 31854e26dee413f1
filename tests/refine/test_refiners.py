"""Refiners by name: the notations of recipes, the errors for mistakes, and the results."""

from __future__ import annotations

import json
from typing import Annotated

import numpy as np
import pytest
import timm
import torch
import yaml
from pydantic import Field
from safetensors.torch import save_file

from ppl.errors import PPLError, PPLTypeError, PPLValueError
from ppl.refine import (
    REFINERS,
    RefinerSpec,
    apply_refiners,
    cams_to_probs,
    crf,
    crf_backend,
    guided_filter,
    iterate_refiners,
    parse_refiners,
    random_walk,
    register_refiner,
)
from ppl.refine.pixels import PixelClassifier, save_pixel_classifier


@pytest.fixture
def scene():
    random = np.random.default_rng(0)
    image = random.integers(0, 256, (20, 24, 3)).astype(np.uint8)
    probs = random.random((3, 20, 24)).astype(np.float32)
    return image, probs / probs.sum(axis=0)


@pytest.mark.parametrize(
    "recipe",
    [
        yaml.safe_load("[crf: irn, random_walk: {beta: 8, num_steps: 16}, crf: psa]"),
        yaml.safe_load("- crf: irn\n- random_walk:\n    beta: 8\n    num_steps: 16\n- crf: psa"),
        ["crf: irn", {"random_walk": {"beta": 8.0, "num_steps": 16}}, "crf:psa"],
        "crf: irn, random_walk: {beta: 8, num_steps: 16}, crf: psa",
        [
            RefinerSpec("crf", {"preset": "irn"}),
            RefinerSpec("random_walk", {"beta": 8, "num_steps": 16}),
            RefinerSpec("crf", {"preset": "psa"}),
        ],
    ],
)
def test_all_notations_of_a_list_of_refiners(recipe):
    assert parse_refiners(recipe) == (
        RefinerSpec("crf", {"preset": "irn"}),
        RefinerSpec("random_walk", {"beta": 8.0, "num_steps": 16}),
        RefinerSpec("crf", {"preset": "psa"}),
    )


def test_names_without_options_and_empty_lists():
    assert parse_refiners(["superpixels", {"guided_filter": None}]) == (
        RefinerSpec("superpixels"),
        RefinerSpec("guided_filter"),
    )
    assert parse_refiners("pixel_adaptive: 5") == (RefinerSpec("pixel_adaptive", {"iterations": 5}),)
    assert parse_refiners({"crf": {"preset": "irn", "iterations": 1}})[0].options["iterations"] == 1
    assert parse_refiners(None) == parse_refiners([]) == ()


@pytest.mark.parametrize(
    ("recipe", "error", "words"),
    [
        (["cfr: irn"], PPLValueError, "did you mean 'crf'"),
        (["guided"], PPLValueError, "did you mean 'guided_filter'"),
        (["crf: inr"], PPLValueError, "did you mean 'irn'"),
        ([{"crf": {"preset": "irn", "itterations": 5}}], PPLTypeError, "did you mean 'iterations'"),
        ([{"crf": {"iterations": -1}}], PPLValueError, "iterations=-1"),
        ([{"crf": {"backend": "pydense"}}], PPLValueError, "pydense"),
        ([{"random_walk": {"radius": 1}}], PPLValueError, "radius=1"),
        ([{"random_walk": {"beta": "big"}}], PPLValueError, "beta='big'"),
        ([{"superpixels": "slick"}], PPLValueError, "method='slick'"),
        ([{"guided_filter": {"eps": 0}}], PPLValueError, "eps=0"),
        ([{"pixel_adaptive": {"dilations": []}}], PPLValueError, "dilations"),
        ([{"crf": "irn", "random_walk": None}], PPLValueError, "a refiner is a name"),
        ([3], PPLValueError, "got 3"),
        (7, PPLTypeError, "int"),
        ("crf: [", PPLValueError, "cannot be read"),
        (["crf: [irn"], PPLValueError, "cannot be read"),
        ([{"crf": {"gaussian_compat": -1}}], PPLValueError, "gaussian_compat=-1"),
        ([{"crf": {"bilateral_sxy": float("inf")}}], PPLValueError, "bilateral_sxy=inf"),
    ],
)
def test_mistakes_are_found_before_any_work(recipe, error, words):
    with pytest.raises(error, match=words) as caught:
        parse_refiners(recipe)
    assert isinstance(caught.value, PPLError) and "\n" not in str(caught.value)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Options of refiners with a network: two would download weights, and `pixel_classifier` has none."""
    folder = tmp_path_factory.mktemp("weights")
    save_file(timm.create_model("test_resnet", pretrained=False).state_dict(), folder / "resnet.safetensors")
    save_pixel_classifier(PixelClassifier("test_resnet", num_classes=4), folder / "pixels.safetensors")
    return {
        "feature_walk": {"backbone": "test_resnet", "checkpoint_path": folder / "resnet.safetensors"},
        "pixel_classifier": {"network": folder / "pixels.safetensors"},
        "sam": {"model": halves_of},
    }


def halves_of(image):
    """Return the left and the right half of an image as segments."""
    left = np.zeros(image.shape[:2], bool)
    left[:, : image.shape[1] // 2] = True
    return np.stack([left, ~left])


@pytest.mark.parametrize("name", REFINERS)
def test_every_refiner_maps_probabilities_to_probabilities(scene, weights, name):
    image, probs = scene
    refiners = parse_refiners({name: weights.get(name)})
    labels = np.arange(len(probs))
    refined = apply_refiners(refiners, image, probs, labels)
    assert refined.shape == probs.shape and refined.dtype == np.float32
    assert refined.min() >= 0
    np.testing.assert_allclose(refined.sum(axis=0), 1, atol=1e-4)
    as_torch = apply_refiners(refiners, torch.from_numpy(image), torch.from_numpy(probs), labels)
    assert isinstance(as_torch, torch.Tensor)
    np.testing.assert_allclose(as_torch.numpy(), refined, atol=1e-5)


@pytest.mark.parametrize("name", REFINERS)
@pytest.mark.parametrize("size", [(1, 1), (2, 9)])
def test_every_refiner_takes_tiny_images_and_the_background_alone(weights, name, size):
    image, probs = np.zeros((*size, 3), np.uint8), np.ones((1, *size), np.float32)
    refiners = parse_refiners({name: weights.get(name)})
    np.testing.assert_allclose(apply_refiners(refiners, image, probs, np.array([0])), 1, atol=1e-5)
    halves = np.full((2, *size), 0.5, np.float32)
    np.testing.assert_allclose(apply_refiners(refiners, image, halves, np.array([0, 1])).sum(axis=0), 1, atol=1e-5)


def test_refiners_run_in_order_and_each_result_is_yielded(scene):
    image, probs = scene
    steps = parse_refiners(["guided_filter: 2", "superpixels"])
    handed_out = list(iterate_refiners(steps, image, probs))
    assert [step.name for step, _ in handed_out] == ["guided_filter", "superpixels"]
    first = guided_filter(image, probs, radius=2).clip(0)
    np.testing.assert_allclose(handed_out[0][1], first / first.sum(axis=0), atol=1e-6)
    np.testing.assert_array_equal(handed_out[1][1], apply_refiners(steps, image, probs))
    assert apply_refiners((), image, probs) is probs


@pytest.mark.parametrize("preset", ["psa", "irn", "toco-cam"])
def test_the_crf_refiner_is_the_preset(scene, preset):
    image, probs = scene
    refined = apply_refiners(parse_refiners({"crf": preset}), image, probs)
    np.testing.assert_allclose(refined, crf(image, probs, preset=preset), atol=1e-5)


def test_the_crf_refiner_replaces_single_values(scene):
    image, probs = scene
    refined = apply_refiners(parse_refiners({"crf": {"bilateral_srgb": 5, "iterations": 2}}), image, probs)
    np.testing.assert_allclose(refined, crf(image, probs, bilateral_srgb=5, iterations=2), atol=1e-5)


def test_the_random_walk_refiner_at_stride_one_is_the_walk(scene):
    image, probs = scene
    refined = apply_refiners(parse_refiners({"random_walk": {"beta": 10, "num_steps": 5}}), image, probs)
    colours = (image.astype(np.float32) / 255).transpose(2, 0, 1)
    walked = random_walk(None, probs, features=colours, num_steps=5)
    np.testing.assert_allclose(refined, walked / walked.sum(axis=0), atol=1e-5)


def test_records_hold_every_parameter_and_the_engine():
    records = [
        spec.record() for spec in parse_refiners("crf: irn, random_walk: {affinity: a/b.safetensors}, superpixels")
    ]
    assert json.loads(json.dumps(records)) == records
    assert records[0]["options"] == {
        "preset": "irn",
        "iterations": 10,
        "gaussian_sxy": 3,
        "gaussian_compat": 3,
        "gaussian_normalization": "symmetric",
        "bilateral_sxy": 50,
        "bilateral_srgb": 5,
        "bilateral_compat": 10,
        "bilateral_normalization": "symmetric",
        "gt_prob": 0.7,
        "scale_factor": 1.0,
        "backend": crf_backend("auto"),
    }
    assert records[1]["options"] == {
        "affinity": "b.safetensors",
        "stride": None,
        "radius": 5,
        "beta": 10.0,
        "num_steps": 256,
        "background": None,
    }
    assert records[2]["options"]["n_segments"] == 1000
    assert parse_refiners("crf: irn")[0].record("cuda")["options"]["backend"] == "torch"


def fade(image, probs, *, power: Annotated[float, Field(gt=0)] = 2.0, shift: int = 0):
    """A refiner of a user's own module."""
    return probs**power + shift


def wrong_shape(image, probs):
    return probs[:1]


def test_a_refiner_of_ones_own_is_known_by_its_name_and_its_options_are_checked(scene, monkeypatch):
    monkeypatch.setattr(REFINERS, "_parts", dict(REFINERS))
    register_refiner("fade", fade)
    register_refiner("fade", fade)  # a plugin may be imported twice
    image, probs = scene
    refined = apply_refiners(parse_refiners("fade: 3"), image, probs)
    np.testing.assert_allclose(refined, probs**3 / (probs**3).sum(axis=0), atol=1e-6)
    (spec,) = parse_refiners([{"fade": {"shift": 1}}])
    assert spec.label == "fade: shift 1" and spec.record()["options"] == {"power": 2.0, "shift": 1}
    with pytest.raises(PPLValueError, match="power=-1"):
        parse_refiners("fade: -1")
    with pytest.raises(PPLTypeError, match="did you mean 'shift'"):
        parse_refiners([{"fade": {"shft": 1}}])
    with pytest.raises(PPLValueError, match="did you mean 'fade'"):
        parse_refiners("faded")


def test_functions_that_cannot_be_refiners_are_refused(scene, monkeypatch):
    monkeypatch.setattr(REFINERS, "_parts", dict(REFINERS))
    with pytest.raises(PPLValueError, match="refiner named 'crf' exists already"):
        register_refiner("crf", fade)
    with pytest.raises(PPLTypeError, match=r"'blind' cannot be called as refiner\(image, probs\)"):
        register_refiner("blind", lambda probs: probs)
    with pytest.raises(PPLTypeError, match=r"missing a required .*'size'"):
        register_refiner("sized", lambda image, probs, *, size: probs)
    register_refiner("wrong_shape", wrong_shape)
    with pytest.raises(PPLTypeError, match="no options, got 3"):
        parse_refiners("wrong_shape: 3")
    with pytest.raises(PPLValueError, match=r"'wrong_shape' made \(1, 20, 24\) of maps \(3, 20, 24\)"):
        apply_refiners(parse_refiners("wrong_shape"), *scene)


@pytest.mark.parametrize("preset", ["psa", "irn"])
@pytest.mark.parametrize(("spoil", "words"), [(np.nan, "NaN"), (9.0, "sum to 1")])
def test_the_crf_refiner_checks_the_maps_under_every_preset(scene, preset, spoil, words):
    image, probs = scene
    spoilt = probs.copy()
    spoilt[0, 0, 0] = spoil
    with pytest.raises(PPLValueError, match=words):
        REFINERS["crf"](image, spoilt, preset=preset)


@pytest.mark.parametrize(
    ("name", "setting", "exact"),
    [
        ("guided_filter", {"radius": 8.0}, {"radius": 8}),
        ("pixel_adaptive", {"iterations": 3.0}, {"iterations": 3}),
        ("superpixels", {"n_segments": "20"}, {"n_segments": 20}),
        ("random_walk", {"num_steps": 4.0}, {"num_steps": 4}),
    ],
)
def test_a_value_that_converts_without_loss_is_taken(scene, name, setting, exact):
    run = REFINERS[name]
    np.testing.assert_array_equal(run(*scene, **setting), run(*scene, **exact))


@pytest.mark.parametrize(
    "name", ["guided_filter", "pixel_adaptive", "superpixels", "random_walk", "feature_walk", "sam"]
)
def test_float_images_beyond_one_are_refused(scene, name):
    image, probs = scene
    with pytest.raises(PPLValueError, match=r"must lie in \[0, 1\].*divide by 255"):
        REFINERS[name](image.astype(np.float32), probs)


@pytest.mark.parametrize(
    "name", ["guided_filter", "pixel_adaptive", "superpixels", "random_walk", "feature_walk", "sam"]
)
def test_maps_that_are_not_an_array_are_refused(scene, name):
    with pytest.raises(PPLTypeError, match="got list"):
        REFINERS[name](scene[0], [[[0.5]]])


def test_arrays_of_another_byte_order_are_taken(scene):
    image, probs = scene
    run = REFINERS["guided_filter"]
    np.testing.assert_array_equal(run(image, probs.astype(">f4")), run(image, probs.astype("<f4")))


@pytest.mark.parametrize("score", [0.2, 0.5])
def test_with_a_constant_background_the_walk_propagates_the_cams_as_in_irn(score):
    random = np.random.default_rng(3)
    image = random.integers(0, 256, (20, 24, 3)).astype(np.uint8)
    cams = random.random((2, 20, 24)).astype(np.float32)
    step = REFINERS["random_walk"]
    refined = step(image, cams_to_probs(cams, score), background=0.25, num_steps=8)
    # the order of IRN: propagate the CAMs, divide by their maximum, put 0.25 in front
    walked = random_walk(None, cams, features=image.transpose(2, 0, 1).astype(np.float32) / 255, beta=60, num_steps=8)
    expected = np.concatenate([np.full((1, 20, 24), 0.25, np.float32), walked / walked.max()])
    np.testing.assert_allclose(refined, expected / expected.sum(axis=0), rtol=1e-3, atol=1e-5)


def test_with_a_constant_background_an_image_without_a_class_is_background():
    refined = REFINERS["random_walk"](np.zeros((5, 6, 3), np.uint8), np.ones((1, 5, 6), np.float16), background=0.25)
    np.testing.assert_array_equal(refined, np.ones((1, 5, 6), np.float16))


def test_with_a_constant_background_half_precision_without_background_is_taken():
    random = np.random.default_rng(4)
    image = random.integers(0, 256, (6, 7, 3)).astype(np.uint8)
    probs = cams_to_probs(random.random((2, 6, 7)).astype(np.float32), 0.0).astype(np.float16)
    step = REFINERS["random_walk"]
    refined = step(image, probs, background=0.25, num_steps=4)
    assert refined.dtype == np.float16
    np.testing.assert_allclose(refined, step(image, probs.astype(np.float32), background=0.25, num_steps=4), atol=1e-3)
