from __future__ import annotations

import pytest
import timm
import torch
import torch.nn.functional as F
from torch import nn

from ppl.backbones.families.orders import hiera_order
from ppl.cam import generate
from ppl.cam.arithmetic import sharpen
from ppl.cam.classifier import Classifier
from ppl.cam.make_classifier import make_classifier
from ppl.cam.methods.gradient import gradient_maps
from ppl.errors import PPLTypeError, PPLValueError
from ppl.models import PPLNet, create_model

SCALES = (1.0, 0.5, 1.5)


def make_model(mode="progressive", name="test_resnet", **kwargs):
    torch.manual_seed(0)
    settings = {"mode": mode, "pretrained": False, **kwargs}
    return create_model(name, 5, **settings).eval()


def make_resnet(mode="progressive", **kwargs):
    return make_model(mode, cuts=["layer2", "layer3"], zero_init_last=False, **kwargs)


def plain_maps(model, image, number):
    """Class map and LayerCAM map of one class of one image, with the gradient of the classes' sum written out."""
    net, weight = model.backbone, model.fusion.classifiers[-1].weight
    with torch.no_grad():
        x = net.layer2(net.layer1(net.maxpool(net.act1(net.bn1(net.conv1(image))))))
        features = net.layer3(x)
    features.requires_grad_()
    class_map = F.conv2d(net.layer4(features), weight)[0, number]
    (gradient,) = torch.autograd.grad(class_map.sum(), features)
    layer = (gradient.clamp(min=0) * features.detach()).sum(1).clamp(min=0)[0]
    return class_map.detach().clamp(min=0), layer


def by_loops(model, image, classes, scales):
    """The definition: one image, one class, one scale, one mirror image at a time."""
    height, width = image.shape[1:]

    def resize(maps):
        return F.interpolate(maps[None, None], (height, width), mode="bilinear", align_corners=False)[0, 0]

    results = []
    for number in classes:
        total, evidence = torch.zeros(height, width), torch.zeros(height, width)
        for scale in scales:
            x = image[None]
            if scale != 1:
                size = (round(height * scale), round(width * scale))
                x = F.interpolate(x, size, mode="bilinear", align_corners=False)
            (maps, layer), (mirrored, mirrored_layer) = (plain_maps(model, view, number) for view in (x, x.flip(-1)))
            total += resize(maps + mirrored.flip(-1))
            layer = layer + mirrored_layer.flip(-1)
            evidence += resize(layer / (layer.max() + 1e-5))
        sharp = total * (evidence / (evidence.max() + 1e-5)) ** 0.5
        results.append(sharp / (sharp.max() + 1e-5))
    return torch.stack(results)


@pytest.mark.parametrize("mode", ["baseline", "progressive", "explicit"])
def test_maps_are_those_of_plain_loops(mode):
    model = make_resnet(mode)
    images = [torch.randn(3, *size) for size in [(64, 96), (75, 64), (64, 96), (101, 77)]]
    labels = [[0, 3], [2], [4, 0, 2], [3]]
    results = generate(model, images, labels, scales=SCALES, method="sharpened_cam")
    for image, row, result in zip(images, labels, results, strict=True):
        torch.testing.assert_close(result.maps, by_loops(model, image, sorted(row), SCALES), atol=1e-4, rtol=1e-3)


def test_sharpened_maps_lie_within_the_class_maps():
    model, image = make_resnet(), torch.randn(3, 64, 96)
    plain, sharp = (
        generate(model, [image], [[1, 2]], normalize="none", method=method)[0].maps
        for method in ("cam", "sharpened_cam")
    )
    assert (sharp <= plain + 1e-5).all()
    assert (sharp >= 0).all()
    assert sharp.sum() < 0.9 * plain.sum()


def test_scores_are_those_of_the_class_activation_map():
    model, image = make_resnet(), torch.randn(3, 64, 96)
    plain, sharp = (generate(model, [image], [[1, 2]], method=method)[0] for method in ("cam", "sharpened_cam"))
    torch.testing.assert_close(sharp.scores, plain.scores)


@pytest.mark.parametrize("labels", [[[], [2]], [[], []]])
def test_image_without_classes_has_no_maps(labels):
    results = generate(make_resnet(), torch.randn(2, 3, 64, 64), labels, method="sharpened_cam")
    assert [len(result.maps) for result in results] == [len(row) for row in labels]


def test_predicted_classes_need_no_labels():
    model = make_resnet("baseline")
    image = torch.randn(1, 3, 64, 64)
    plain, sharp = (generate(model, image, method=method)[0] for method in ("cam", "sharpened_cam"))
    assert sharp.classes.tolist() == plain.classes.tolist()
    assert sharp.maps.shape == plain.maps.shape


@pytest.mark.parametrize("name", ["test_vit", "test_convnext", "test_efficientnet", "test_resnet", "test_byobnet"])
def test_backbones_of_any_layout(name):
    model = make_model("baseline", name)
    (result,) = generate(model, [torch.randn(3, 75, 101)], [[1, 4]], scales=[1.0, 1.5], method="sharpened_cam")
    assert result.maps.shape == (2, 75, 101)
    assert result.maps.isfinite().all()


def positive(features, gradients):
    return (features * gradients.relu()).sum(1)


def layer_maps(found, images, classes):
    """LayerCAM of the class maps' sums, as the method computes it, for a reading of a layer."""

    def sums(images, classes):
        return found.class_maps(images, classes).sum(dim=(1, 2))

    return gradient_maps(positive, found.root, found.as_map, sums, torch.tensor(images), torch.tensor(classes)).relu()


def test_channels_last_stages_have_their_cells_in_place():
    torch.manual_seed(0)
    swin = timm.create_model(
        "swin_tiny_patch4_window7_224", img_size=112, depths=(1, 1, 1, 1), embed_dim=24, num_heads=(1, 1, 1, 1)
    ).eval()
    classifier, x = Classifier(swin), torch.randn(2, 3, 112, 112)
    found = layer_maps(classifier.read_layer(x, class_maps=True), [0, 1, 1], [2, 0, 2])
    features = []
    stage = swin.get_submodule(classifier.finer_layer)
    handle = stage.register_forward_hook(lambda m, args, out: features.append(out.retain_grad() or out))
    last = swin.forward_features(x)
    (last[1] @ swin.get_classifier().weight[2]).sum().backward()
    handle.remove()
    expected = (features[0].grad.relu() * features[0])[1].sum(-1).relu()
    torch.testing.assert_close(found[2], expected.detach(), atol=1e-5, rtol=1e-3)


def test_timm_classifiers_too():
    model = timm.create_model("test_resnet", num_classes=5).eval()
    (result,) = generate(model, [torch.randn(3, 64, 96)], [[1]], method="sharpened_cam")
    assert result.maps.shape == (1, 64, 96)


def test_layer_that_is_written_into_is_read_before():
    torch.manual_seed(0)
    parts = [nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 8, 3, 2, 1), nn.ReLU(inplace=True), nn.Conv2d(8, 8, 3, 1, 1)]
    model = PPLNet(nn.Sequential(*parts), 2, mode="baseline", stages=["0", "1", "3"])
    (result,) = generate(model, torch.randn(1, 3, 32, 32), [[0]], scales=[1.0], method="sharpened_cam")
    assert result.maps.isfinite().all()


def test_one_backward_pass_serves_one_class_of_every_image(monkeypatch):
    calls, grad = [], torch.autograd.grad
    model = make_resnet()
    generate(model, torch.randn(1, 3, 64, 64), [[0]], scales=[1.0], method="sharpened_cam")  # finds the layers
    monkeypatch.setattr(torch.autograd, "grad", lambda *args, **kwargs: calls.append(1) or grad(*args, **kwargs))
    labels = [[0, 1, 2], [4], [2, 3], []]
    generate(model, torch.randn(4, 3, 64, 64), labels, scales=[1.0], batch_size=4, method="sharpened_cam")
    assert len(calls) == 3


def test_nothing_before_the_stage_is_in_the_graph():
    model = make_resnet("baseline")
    found = make_classifier(model).read_layer(torch.randn(1, 3, 64, 64), class_maps=True)
    maps = found.class_maps(torch.tensor([0, 0]), torch.tensor([1, 2]))
    names = {name for name, p in model.named_parameters() if _reached(maps, p)}
    assert any(name.startswith("backbone.layer4") for name in names)
    assert not any(name.startswith(("backbone.layer3", "backbone.conv1")) for name in names)


def _reached(maps, parameter):
    return torch.autograd.grad(maps.sum(), parameter, retain_graph=True, allow_unused=True)[0] is not None


def test_model_and_gradients_are_left_as_they_were():
    model = make_resnet().train()
    hooks = {name: len(module._forward_hooks) for name, module in model.named_modules()}
    with torch.inference_mode():
        generate(model, torch.randn(2, 3, 64, 64), [[0], [1, 2]], method="sharpened_cam")
        assert torch.is_inference_mode_enabled()
    assert all(module.training for module in model.modules())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert hooks == {name: len(module._forward_hooks) for name, module in model.named_modules()}
    assert torch.is_grad_enabled()


def test_model_and_gradients_are_left_as_they_were_after_an_error():
    model = make_resnet().train()
    broken = model.backbone.layer4.register_forward_hook(lambda *_: 1 / 0)
    hooks = {name: len(module._forward_hooks) for name, module in model.named_modules()}
    with torch.no_grad(), pytest.raises(ZeroDivisionError):
        generate(model, torch.randn(2, 3, 64, 64), [[0], [1]], method="sharpened_cam")
    assert hooks == {name: len(module._forward_hooks) for name, module in model.named_modules()}
    assert all(module.training for module in model.modules())
    assert torch.is_grad_enabled()
    broken.remove()
    generate(model, torch.randn(2, 3, 64, 64), [[0], [1]], method="sharpened_cam")


def test_mixed_precision_is_close():
    model, image = make_resnet(), torch.randn(3, 96, 96)
    exact, mixed = (generate(model, [image], [[1, 2]], amp=amp, method="sharpened_cam")[0] for amp in (False, True))
    assert (exact.maps - mixed.maps).abs().mean() < 0.02


def test_small_image_is_padded_and_its_map_cropped():
    (result,) = generate(make_resnet(), [torch.randn(3, 20, 45)], [[1]], scales=[1.0, 0.5], method="sharpened_cam")
    assert result.maps.shape == (1, 20, 45)
    assert result.maps.isfinite().all()


def test_backbone_of_one_stage_is_refused():
    model = PPLNet(nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1)), 2, mode="baseline", stages=["0"])
    with pytest.raises(PPLValueError, match="'PPLNet' has none: use method='cam'"):
        generate(model, torch.randn(1, 3, 32, 32), [[0]], method="sharpened_cam")


def test_module_without_a_backbone_is_refused():
    class Net(nn.Module):
        num_classes, min_size, data_config = 2, (1, 1), {"input_size": (3, 32, 32)}

        def check_input_size(self, height, width): ...

        def class_maps(self, x):
            return x[:, :2]

        def pool(self, maps):
            return maps.mean((2, 3))

    with pytest.raises(PPLTypeError, match="Net names none: use method='cam'"):
        generate(Net(), torch.randn(1, 3, 32, 32), [[0]], method="sharpened_cam")


def test_layer_that_runs_twice_is_an_error():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.block, self.last = nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 8, 3, 1, 1), nn.Conv2d(8, 4, 1)

        def forward(self, x):
            return self.last(self.block(self.block(self.first(x)))).mean((2, 3))

    with pytest.raises(PPLValueError, match=r"layer 'block' of 'Twice' returns no map in one call.*first, last"):
        generate(Twice(), torch.randn(1, 3, 16, 16), [[0]], scales=[1.0], method="gradcam", layer="block")


def test_evidence_is_the_same_for_a_class_alone_and_among_others():
    features = torch.randn(3, 4, 5, 6, requires_grad=True)
    maps = F.conv2d(features**2, torch.randn(7, 4, 1, 1))

    def find(images, classes):
        def sums(images, classes):
            return maps[images, classes].sum(dim=(1, 2))

        return gradient_maps(positive, features, lambda x: x, sums, images, classes)

    images, classes = torch.tensor([0, 0, 1, 2, 2, 2]), torch.tensor([1, 6, 0, 2, 3, 5])
    together = find(images, classes)
    for number in range(6):
        one = slice(number, number + 1)
        torch.testing.assert_close(together[one], find(images[one], classes[one]))


def test_sharpening_with_evidence_everywhere_changes_nothing_but_rounding():
    total = torch.rand(2, 5, 6)
    torch.testing.assert_close(sharpen(total, torch.full((2, 5, 6), 3.0)), total, atol=1e-4, rtol=1e-4)


def test_tokens_in_an_order_of_their_own_lie_over_their_pixels():
    torch.manual_seed(0)
    small = {"embed_dim": 16, "stages": (1, 1, 2, 1)}
    model = create_model("hiera_tiny_224", 3, mode="baseline", pretrained=False, **small).eval()
    classifier, image, kept = make_classifier(model), torch.randn(1, 3, 224, 224), []

    def root(module, args, output):
        kept.append(output.detach().requires_grad_())
        return kept[0]

    found = layer_maps(classifier.read_layer(image, class_maps=True), [0], [1])[0]
    handle = model.get_submodule(classifier.finer_layer).register_forward_hook(root)
    (gradient,) = torch.autograd.grad(model.class_maps(image)[0, 1].sum(), kept)
    handle.remove()
    cells = (gradient.relu() * kept[0].detach()).sum(-1)[0].relu()
    stage = next(one for one in model.stages if f"backbone.{one.module}" == classifier.finer_layer)
    rows = cells[hiera_order(model.backbone, stage, (14, 14))].reshape(14, 14)
    torch.testing.assert_close(found, rows)
    assert not torch.allclose(rows, cells.reshape(14, 14))
