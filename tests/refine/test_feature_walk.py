"""The walk on features of a frozen backbone against the dense matrix, built cell by cell."""

from __future__ import annotations

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from ppl.cam.background import otsu_background
from ppl.errors import PPLFileNotFoundError, PPLValueError
from ppl.refine import apply_refiners, cams_to_probs, feature_walk, parse_refiners, refine_folder


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "resnet.safetensors"
    save_file(timm.create_model("test_resnet", pretrained=False).state_dict(), path)
    return path


@pytest.fixture
def scene():
    random = np.random.default_rng(0)
    image = random.integers(0, 256, (40, 56, 3)).astype(np.uint8)
    return image, random.random((2, 40, 56)).astype(np.float32)


def walked_cell_by_cell(image, maps, weights, sharpness):
    """Features of layer3 (stride 16) of the image at twice its size, and the affinity of every pair of cells."""
    network = timm.create_model("test_resnet", checkpoint_path=str(weights)).eval()
    pixels = (torch.from_numpy(image).permute(2, 0, 1).float() / 255 - 0.5) / 0.5
    large = F.interpolate(pixels[None], scale_factor=2, mode="bilinear", align_corners=False)
    with torch.no_grad():
        x = network.maxpool(network.act1(network.bn1(network.conv1(large))))
        x = network.layer3(network.layer2(network.layer1(x)))[0].double().numpy()
    cells = x.reshape(len(x), -1).T
    cells = cells - cells.mean(axis=0)
    cells /= np.linalg.norm(cells, axis=1, keepdims=True)
    matrix = np.array([[np.exp(-sharpness * (1 - one @ other)) for other in cells] for one in cells])
    matrix /= matrix.sum(axis=1, keepdims=True)
    start = F.interpolate(torch.from_numpy(maps)[None], x.shape[1:], mode="area")[0].flatten(1).double().numpy()
    walked = matrix @ start.T
    walked = torch.from_numpy((walked - walked.min(axis=0)).T.copy()).view(1, -1, *x.shape[1:])
    walked = F.interpolate(walked, maps.shape[1:], mode="bilinear", align_corners=False)[0].float()
    return walked / walked.max()


def call(weights, **options):
    return {"backbone": "test_resnet", "checkpoint_path": weights, **options}


@pytest.mark.parametrize("before", [0.3, "auto"])
@pytest.mark.parametrize("sharpness", [5.0, 2.0])
def test_the_cams_are_averaged_over_alike_cells_before_the_background_rule(scene, weights, before, sharpness):
    image, maps = scene
    refined = feature_walk(image, cams_to_probs(maps, before), **call(weights, sharpness=sharpness))
    cams = walked_cell_by_cell(image, maps, weights, sharpness)
    stack = torch.cat([otsu_background(cams.amax(0))[None], cams])
    np.testing.assert_allclose(refined, stack / stack.sum(0), atol=2e-3)


def test_the_background_rule_is_an_option(scene, weights):
    image, maps = scene
    refined = feature_walk(image, cams_to_probs(maps, 0.3), **call(weights, background=0.25))
    cams = walked_cell_by_cell(image, maps, weights, 5.0)
    expected = cams_to_probs(cams, 0.25)
    np.testing.assert_allclose(refined, expected, atol=2e-3)


def test_a_large_image_has_larger_cells_and_the_result_the_same_size(weights, monkeypatch):
    monkeypatch.setattr("ppl.refine.walk_features._MOST_CELLS", 20)
    image, probs = np.zeros((50, 70, 3), np.uint8), np.full((2, 50, 70), 0.5, np.float32)
    assert feature_walk(image, probs, **call(weights)).shape == (2, 50, 70)


def test_an_image_without_a_class_is_background(scene, weights):
    np.testing.assert_array_equal(feature_walk(scene[0], np.ones((1, 40, 56), np.float32), **call(weights)), 1)


def test_torch_tensors_and_half_precision_keep_their_type(scene, weights):
    image, maps = scene
    probs = torch.from_numpy(cams_to_probs(maps, 0.4))
    single = feature_walk(torch.from_numpy(image), probs, **call(weights, background=0.3))
    half = feature_walk(image, probs.half(), **call(weights, background=0.3))
    assert half.dtype == torch.float16
    torch.testing.assert_close(half.float(), single, atol=2e-2, rtol=0)


def test_bad_input_is_named(scene, weights, tmp_path):
    image, maps = scene
    probs = cams_to_probs(maps, 0.4)
    with pytest.raises(PPLValueError, match="reduction=1 is below"):
        feature_walk(image, probs, **call(weights, reduction=1))
    with pytest.raises(PPLValueError, match="background='otsu'"):
        feature_walk(image, probs, **call(weights, background="otsu"))
    with pytest.raises(PPLValueError, match=r"resnet\.safetensors"):
        feature_walk(image, probs, backbone="test_vit", checkpoint_path=weights)
    with pytest.raises(PPLFileNotFoundError, match=r"there is no file at .*none\.safetensors"):
        refine_folder([], tmp_path / "out", [{"feature_walk": {"checkpoint_path": str(tmp_path / "none.safetensors")}}])


def test_it_is_a_refiner(scene, weights):
    image, maps = scene
    probs = cams_to_probs(maps, 0.4)
    refiners = parse_refiners([{"feature_walk": call(str(weights))}, "guided_filter: 2"])
    assert apply_refiners(refiners, image, probs).shape == probs.shape
    assert set(refiners[0].record()["sha256"]) == {"checkpoint_path"}
