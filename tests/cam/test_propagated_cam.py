from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ppl.cam import generate, propagate
from ppl.cam.make_classifier import make_classifier
from ppl.cam.propagation import SHARPNESS
from ppl.errors import PPLValueError
from ppl.models import PPLNet, create_model


def make_resnet(mode="progressive", name="test_resnet", **kwargs):
    torch.manual_seed(0)
    settings = {"mode": mode, "pretrained": False, "zero_init_last": False, "cuts": ["layer2", "layer3"], **kwargs}
    return create_model(name, 5, **settings).eval()


def by_loops(maps, features, sharpness):
    """The definition, pair by pair of cells; all features have the size of the maps."""
    height, width = maps.shape[1:]
    cells = [(y, x) for y in range(height) for x in range(width)]
    centred = [layer - layer.mean(dim=(1, 2), keepdim=True) for layer in features]
    found = torch.zeros_like(maps)
    for y, x in cells:
        weights = []
        for v, u in cells:
            cosines = [F.cosine_similarity(layer[:, y, x], layer[:, v, u], dim=0) for layer in centred]
            weights.append(math.exp(sum(factor * float(one) for factor, one in zip(sharpness, cosines, strict=True))))
        for k in range(len(maps)):
            values = [weight * float(maps[k, v, u]) for weight, (v, u) in zip(weights, cells, strict=True)]
            found[k, y, x] = sum(values) / sum(weights)
    return found - found.amin(dim=(1, 2), keepdim=True)


def test_average_is_that_of_plain_loops():
    torch.manual_seed(0)
    maps, features = torch.rand(2, 4, 5), [torch.randn(3, 4, 5), torch.randn(7, 4, 5)]
    torch.testing.assert_close(propagate(maps, features, (1.5, 4.0)), by_loops(maps, features, (1.5, 4.0)))


def test_cells_of_the_coarsest_layer_are_compared():
    torch.manual_seed(0)
    maps, fine, coarse = torch.rand(1, 12, 16), torch.randn(3, 6, 8), torch.randn(5, 3, 4)
    small = F.interpolate(maps[None], (3, 4), mode="area")[0]
    layers = [F.interpolate(fine[None], (3, 4), mode="area")[0], coarse]
    expected = F.interpolate(by_loops(small, layers, SHARPNESS)[None], (12, 16), mode="bilinear", align_corners=False)
    torch.testing.assert_close(propagate(maps, [fine, coarse]), expected[0])


def test_head_spreads_over_the_body_and_not_over_the_background():
    features = torch.zeros(2, 8, 12)
    features[0, 2:6, 1:11] = 1  # an animal
    features[1] = 1 - features[0]
    maps = torch.zeros(1, 8, 12)
    maps[0, 2:4, 1:3] = 1  # its head
    found = propagate(maps, [features], [4.0])[0]
    animal = features[0].bool()
    assert found[animal].min() > 100 * found[~animal].max()


def test_large_maps_are_compared_on_fewer_cells():
    found = propagate(torch.rand(1, 300, 400), [torch.randn(2, 300, 400)], [4.0])
    assert found.shape == (1, 300, 400)
    assert found.isfinite().all()


@pytest.mark.parametrize("value", [0.0, 3.0, 1e6])
def test_features_without_differences_give_an_empty_map(value):
    found = propagate(torch.rand(2, 5, 7), [torch.full((4, 5, 7), value)], [4.0])
    torch.testing.assert_close(found, torch.zeros(2, 5, 7), atol=1e-6, rtol=0)


def test_no_maps_stay_none():
    assert propagate(torch.zeros(0, 5, 7), [torch.randn(4, 5, 7)], [4.0]).shape == (0, 5, 7)


@pytest.mark.parametrize(("count", "sharpness"), [(0, ()), (1, (1.0, 2.0))])
def test_one_factor_for_each_layer(count, sharpness):
    with pytest.raises(PPLValueError, match=f"got {count} maps and {len(sharpness)} factors"):
        propagate(torch.zeros(1, 2, 2), [torch.zeros(3, 2, 2)] * count, sharpness)


@pytest.mark.parametrize("mode", ["baseline", "progressive"])
def test_method_propagates_the_sharpened_map_with_features_of_the_largest_scale(mode):
    model, image = make_resnet(mode), torch.randn(3, 64, 96)
    options = {"scales": (1.0, 2.0, 0.5), "normalize": "none"}
    sharp = generate(model, [image], [[3, 1]], method="sharpened_cam", **options)[0].maps
    found = generate(model, [image], [[3, 1]], method="propagated_cam", **options)[0].maps
    net = model.backbone
    with torch.no_grad():
        x = F.interpolate(image[None], (128, 192), mode="bilinear", align_corners=False)
        layer2 = net.layer2(net.layer1(net.maxpool(net.act1(net.bn1(net.conv1(x))))))
        layer3 = net.layer3(layer2)
    torch.testing.assert_close(found, propagate(sharp, [layer2[0], layer3[0]], SHARPNESS), atol=1e-5, rtol=1e-3)


def test_features_are_those_of_each_image():
    model, images = make_resnet(), [torch.randn(3, 64, 96) for _ in range(3)]
    labels = [[0, 1], [], [4]]
    together = generate(model, images, labels, scales=[1.0], method="propagated_cam")
    for image, row, result in zip(images, labels, together, strict=True):
        (alone,) = generate(model, [image], [row], scales=[1.0], method="propagated_cam")
        torch.testing.assert_close(result.maps, alone.maps, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("name", ["test_vit", "test_convnext", "test_efficientnet", "test_byobnet"])
def test_backbones_of_any_layout(name):
    torch.manual_seed(0)
    model = create_model(name, 5, mode="baseline", pretrained=False).eval()
    (result,) = generate(model, [torch.randn(3, 75, 101)], [[1, 4]], scales=[1.0, 1.5], method="propagated_cam")
    assert result.maps.shape == (2, 75, 101)
    assert result.maps.isfinite().all()
    assert result.maps.min() >= 0


def test_layers_are_those_of_the_last_two_default_cuts():
    assert make_classifier(make_resnet()).similarity_layers == ("backbone.layer2.0", "backbone.layer3.0")


def test_layer_that_is_named_is_the_only_one():
    classifier = make_classifier(make_resnet(), layer="layer2")
    assert classifier.similarity_layers == ("backbone.layer2",)


def test_mixed_precision_gives_float32_maps_that_are_close():
    model, image = make_resnet(), torch.randn(3, 96, 96)
    exact, mixed = (
        generate(model, [image], [[1, 2]], scales=[1.0], amp=amp, method="propagated_cam")[0] for amp in (False, True)
    )
    assert mixed.maps.dtype == torch.float32
    assert (exact.maps - mixed.maps).abs().mean() < 0.05


def test_averages_are_exact_within_autocast():
    maps, features = torch.rand(2, 6, 8), [torch.randn(16, 6, 8)]
    with torch.autocast("cpu", torch.bfloat16):
        found = propagate(maps, features, [4.0])
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, propagate(maps, features, [4.0]))


def test_small_image_is_padded_and_its_map_cropped():
    (result,) = generate(make_resnet(), [torch.randn(3, 20, 45)], [[1]], scales=[1.0, 0.5], method="propagated_cam")
    assert result.maps.shape == (1, 20, 45)
    assert result.maps.isfinite().all()


def test_backbone_of_one_stage_is_refused():
    model = PPLNet(nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1)), 2, mode="baseline", stages=["0"])
    with pytest.raises(PPLValueError, match="'PPLNet' has none: use method='cam'"):
        generate(model, torch.randn(1, 3, 32, 32), [[0]], method="propagated_cam")
