"""Affinity networks: a frozen backbone, files, several threads."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import timm
import torch
from torch import nn

from ppl.errors import PPLFileNotFoundError, PPLTypeError, PPLValueError
from ppl.refine import apply_refiners, parse_refiners
from ppl.refine.affinity import AffinityMaps, AffinityNetwork, load_affinity, predict_affinity, save_affinity


@pytest.fixture
def image():
    return np.random.default_rng(0).integers(0, 256, (61, 83, 3)).astype(np.uint8)


@pytest.mark.parametrize(("kind", "stride", "channels"), [("edges", 4, 1), ("features", 8, 64)])
def test_output_covers_every_pixel(kind, stride, channels):
    network = AffinityNetwork("test_resnet", kind=kind)
    for height, width in [(64, 64), (61, 83), (33, 97)]:
        output = network(torch.zeros(1, 3, height, width))
        assert output.shape == (1, channels, -(-height // stride), -(-width // stride))


def test_all_stages_are_used_and_only_the_head_learns():
    network = AffinityNetwork("test_resnet").train()
    before = {name: value.clone() for name, value in network.backbone.state_dict().items()}
    network(torch.rand(2, 3, 64, 64)).sum().backward()
    assert all(p.grad is None for p in network.backbone.parameters())
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.head.sides.branches.parameters())
    assert len(network.head.sides.branches) > 3
    assert not network.backbone.training and network.head.training
    assert all(torch.equal(before[name], value) for name, value in network.backbone.state_dict().items())


@pytest.mark.parametrize("name", ["test_vit", "test_efficientnet", "test_convnext"])
def test_backbones_of_other_families_work(name):
    network = AffinityNetwork(name, backbone_options={"dynamic_img_size": True} if "vit" in name else None)
    assert network(torch.zeros(1, 3, 160, 160)).shape == (1, 1, 40, 40)


def test_flipped_images_give_flipped_edges(image):
    network = AffinityNetwork("test_resnet")
    image = image[:60, :80]
    edges = predict_affinity(network, image).edges
    torch.testing.assert_close(predict_affinity(network, image[:, ::-1]).edges.flip(-1), edges, atol=1e-5, rtol=1e-4)
    assert edges.min() >= 0 and edges.max() <= 1


def test_prediction_restores_the_mode(image):
    network = AffinityNetwork("test_resnet").train()
    predict_affinity(network, image)
    assert network.training
    with pytest.raises(PPLValueError):
        predict_affinity(network, image[0])
    assert network.training


@pytest.mark.parametrize("kind", ["edges", "features"])
def test_file_round_trip(tmp_path, image, kind):
    network = AffinityNetwork("test_resnet", kind=kind, stride=4)
    save_affinity(network, tmp_path / "a.safetensors")
    loaded = load_affinity(tmp_path / "a.safetensors", device="cpu")(image)
    assert loaded.stride == 4
    torch.testing.assert_close(getattr(loaded, kind), getattr(predict_affinity(network, image), kind))


def test_a_custom_backbone_is_given_to_load_affinity(tmp_path, image):
    def make():
        return nn.Sequential(nn.Conv2d(3, 8, 3, 4, 1), nn.ReLU(), nn.Conv2d(8, 16, 3, 2, 1), nn.ReLU())

    network = AffinityNetwork(make(), stages=["1", "3"])
    save_affinity(network, tmp_path / "a.safetensors")
    with pytest.raises(PPLValueError, match="pass it as"):
        load_affinity(tmp_path / "a.safetensors")
    loaded = load_affinity(tmp_path / "a.safetensors", backbone=make(), device="cpu")
    torch.testing.assert_close(loaded(image).edges, predict_affinity(network, image).edges)
    with pytest.raises(PPLValueError, match="does not fit"):
        load_affinity(
            tmp_path / "a.safetensors",
            backbone=nn.Sequential(nn.Conv2d(3, 4, 3, 4, 1), nn.ReLU(), nn.Conv2d(4, 16, 3, 2, 1), nn.ReLU()),
        )


def test_the_weights_of_a_classifier_are_used():
    classifier = timm.create_model("test_resnet", num_classes=7)
    network = AffinityNetwork("test_resnet", weights=classifier.state_dict())
    own = classifier.state_dict()
    assert all(torch.equal(value, own[name]) for name, value in network.backbone.state_dict().items())
    with pytest.raises(PPLValueError, match="do not fit the backbone"):
        AffinityNetwork("test_resnet", weights={})


def test_a_given_module_is_copied():
    classifier = timm.create_model("test_resnet", num_classes=7).train()
    network = AffinityNetwork(classifier)
    network(torch.rand(1, 3, 64, 64))
    assert classifier.training and all(p.requires_grad for p in classifier.parameters())
    assert torch.equal(network.backbone.conv1[0].weight, classifier.conv1[0].weight)
    assert not any(module._forward_hooks for module in classifier.modules())


def test_threads_share_weights_and_give_equal_results(tmp_path):
    save_affinity(AffinityNetwork("test_resnet"), tmp_path / "a.safetensors")
    predict = load_affinity(tmp_path / "a.safetensors")
    images = [np.random.default_rng(i).integers(0, 256, (40 + 4 * i, 64, 3)).astype(np.uint8) for i in range(12)]
    expected = [predict(image).edges for image in images]
    with ThreadPoolExecutor(4) as pool:
        for edges, result in zip(expected, pool.map(predict, images), strict=True):
            torch.testing.assert_close(result.edges, edges)


def test_the_random_walk_uses_the_file(tmp_path, image):
    save_affinity(AffinityNetwork("test_resnet"), tmp_path / "a.safetensors")
    probs = np.random.default_rng(1).random((3, 61, 83)).astype(np.float32)
    probs /= probs.sum(axis=0)
    refined = apply_refiners(parse_refiners({"random_walk": str(tmp_path / "a.safetensors")}), image, probs)
    assert refined.shape == probs.shape
    np.testing.assert_allclose(refined.sum(axis=0), 1, atol=1e-5)
    with pytest.raises(PPLTypeError, match="stride=8"):
        apply_refiners(
            parse_refiners({"random_walk": {"affinity": str(tmp_path / "a.safetensors"), "stride": 8}}), image, probs
        )


def test_bad_files_and_arguments_are_named(tmp_path):
    (tmp_path / "bad.safetensors").write_bytes(b"no")
    with pytest.raises(PPLValueError, match=r"bad\.safetensors"):
        load_affinity(tmp_path / "bad.safetensors")
    with pytest.raises(PPLFileNotFoundError, match="fit_affinity"):
        load_affinity(tmp_path / "none.safetensors")
    with pytest.raises(PPLValueError, match="did you mean 'edges'"):
        AffinityNetwork("test_resnet", kind="edge")
    with pytest.raises(PPLTypeError, match="either"):
        AffinityMaps()
