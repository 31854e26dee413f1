"""The refiner `pixel_classifier`, its network and its file."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ppl.errors import PPLFileNotFoundError, PPLTypeError, PPLValueError
from ppl.refine import apply_refiners, parse_refiners
from ppl.refine.affinity import AffinityNetwork, save_affinity
from ppl.refine.pixel_refiner import pixel_classifier
from ppl.refine.pixels import PixelClassifier, load_pixel_classifier, save_pixel_classifier
from ppl.refine.specs import check_files

IMAGE = np.random.default_rng(0).integers(0, 255, (37, 50, 3), dtype=np.uint8)


def _constant(*logits: float) -> Callable[[Any], torch.Tensor]:
    return lambda image: torch.tensor(logits)[:, None, None].expand(-1, 5, 7)


def test_the_foreground_is_the_average_and_the_classes_share_it_as_before() -> None:
    probs = np.broadcast_to(np.array([0.4, 0.45, 0.15], np.float32)[:, None, None], (3, 37, 50))
    labels = np.array([0, 2, 3])  # class 0 has the largest logit and is ruled out
    result = pixel_classifier(IMAGE, probs, labels, network=_constant(0.0, 50.0, 1.0, 2.0), weight=0.25)
    background = 2 / (2 + np.exp([1.0, 2.0]).sum())  # as likely as both classes before the image is seen
    foreground = 0.75 * 0.6 + 0.25 * (1 - background)
    np.testing.assert_allclose(result[:, 20, 20], [1 - foreground, 0.75 * foreground, 0.25 * foreground], rtol=1e-5)


def test_foreground_where_no_class_had_a_score_is_shared_by_the_pixel_classifier() -> None:
    probs = np.zeros((3, 37, 50), np.float32)
    probs[0] = 1
    result = pixel_classifier(IMAGE, probs, np.array([0, 1, 2]), network=_constant(0.0, 3.0, 1.0), weight=1.0)
    scores = np.array([2, np.exp(3), np.exp(1)])
    np.testing.assert_allclose(result[:, 20, 20], scores / scores.sum(), rtol=1e-5)


@pytest.mark.parametrize("classes", [1, 2, 7])
def test_a_network_that_knows_nothing_finds_as_much_foreground_as_background(classes: int) -> None:
    probs = np.full((1 + classes, 37, 50), 1 / (1 + classes), np.float32)
    result = pixel_classifier(IMAGE, probs, np.arange(1 + classes), network=_constant(*[0.0] * 9), weight=1.0)
    np.testing.assert_allclose(result[0], 0.5, rtol=1e-5)


@pytest.mark.parametrize("score", [0.0, 1e-9, 5e-7, 1e-5])
def test_the_result_sums_to_1_however_small_the_scores_of_the_classes_are(score: float) -> None:
    probs = np.full((3, 37, 50), score, np.float32)
    probs[0] = 1 - 2 * score
    result = pixel_classifier(IMAGE, probs, np.array([0, 1, 2]), network=_constant(0.0, 3.0, 1.0))
    np.testing.assert_allclose(result.sum(axis=0), 1, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_the_type_of_tensors_is_kept(dtype: torch.dtype) -> None:
    probs = torch.full((2, 37, 50), 0.5, dtype=dtype)
    result = pixel_classifier(torch.from_numpy(IMAGE), probs, np.array([0, 1]), network=_constant(0.0, 3.0))
    assert result.dtype == dtype and result.shape == probs.shape
    assert float(result[1].min()) > 0.5


def test_an_image_without_classes_stays_background() -> None:
    probs = np.ones((1, 37, 50), np.float32)
    np.testing.assert_array_equal(pixel_classifier(IMAGE, probs, np.array([0]), network=_constant(0.0, 1.0)), probs)


def test_labels_reach_the_refiner_through_a_list_of_refiners() -> None:
    (spec,) = parse_refiners([{"pixel_classifier": {"network": _constant(0.0, -9.0, 9.0), "weight": 1.0}}])
    probs = np.full((2, 37, 50), 0.5, np.float32)
    assert apply_refiners([spec], IMAGE, probs, np.array([0, 2]))[1].min() > 0.99
    assert apply_refiners([spec], IMAGE, probs, np.array([0, 1]))[1].max() < 0.01
    with pytest.raises(PPLTypeError, match="needs the class of each channel"):
        apply_refiners([spec], IMAGE, probs)


def test_a_class_that_the_network_does_not_know_is_named() -> None:
    with pytest.raises(PPLValueError, match="knows 1 classes, and the image has class 3"):
        pixel_classifier(IMAGE, np.full((2, 37, 50), 0.5, np.float32), np.array([0, 4]), network=_constant(0.0, 1.0))


def test_a_list_without_a_network_is_refused_before_any_work() -> None:
    with pytest.raises(PPLValueError, match="pixel_classifier needs a network"):
        check_files(parse_refiners("pixel_classifier"))


@pytest.mark.parametrize("size", [(64, 96), (37, 50), (5, 131)])
def test_a_file_gives_the_logits_of_its_network_at_any_size(tmp_path: Path, size: tuple[int, int]) -> None:
    network = PixelClassifier("test_resnet", num_classes=3).eval()
    torch.nn.init.normal_(network.head.weight)
    save_pixel_classifier(network, tmp_path / "pixels.safetensors")
    image = torch.rand(1, 3, *size)
    loaded = load_pixel_classifier(tmp_path / "pixels.safetensors")(image[0].permute(1, 2, 0))
    torch.testing.assert_close(loaded, network(image)[0])
    stride = 8  # 16 at twice the size
    assert loaded.shape == (4, *(-(-side // stride) for side in size))


def test_only_the_head_learns() -> None:
    network = PixelClassifier("test_resnet", num_classes=3).train()
    assert {name for name, weight in network.named_parameters() if weight.requires_grad} == {"head.weight", "head.bias"}
    network(torch.rand(1, 3, 64, 64)).sum().backward()
    assert network.head.weight.grad is not None and not network.backbone.training


def test_files_of_another_kind_and_missing_files_are_named(tmp_path: Path) -> None:
    save_affinity(AffinityNetwork("test_resnet"), tmp_path / "affinity.safetensors")
    with pytest.raises(PPLValueError, match="holds no pixel classifier"):
        load_pixel_classifier(tmp_path / "affinity.safetensors")
    with pytest.raises(PPLFileNotFoundError, match="no pixel classifier at"):
        load_pixel_classifier(tmp_path / "missing.safetensors")
