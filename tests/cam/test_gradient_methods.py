"""Gradient methods against pytorch-grad-cam and torch-cam, on the same model, layer, image and class."""

from __future__ import annotations

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
from timm.models.deit import VisionTransformerDistilled
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from ppl.cam import METHODS, generate, gradient_method, register_method
from ppl.cam.classifier import Classifier
from ppl.cam.make_classifier import make_classifier
from ppl.errors import PPLTypeError, PPLValueError
from ppl.models import create_model

METHOD_NAMES = ["gradcam", "gradcam++", "hirescam", "layercam"]


def make_cnn():
    torch.manual_seed(0)
    return timm.create_model("test_resnet", num_classes=7, zero_init_last=False).eval()


def make_swin():
    torch.manual_seed(0)
    sizes = {"depths": (1, 2, 1, 1), "embed_dim": 24, "num_heads": (1, 1, 1, 1)}
    return timm.create_model("swin_tiny_patch4_window7_224", img_size=112, num_classes=7, **sizes).eval()


def make_vit():
    torch.manual_seed(0)
    return timm.create_model("test_vit", num_classes=7).eval()


def as_it_is(x):
    return x


def from_channels_last(x):
    return x.permute(0, 3, 1, 2)


def from_tokens(x):
    return x[:, 1:].unflatten(1, (10, 10)).permute(0, 3, 1, 2)


CASES = [
    (make_cnn, "layer4", (2, 3, 96, 128), as_it_is),
    (make_cnn, "layer3", (2, 3, 96, 128), as_it_is),
    (make_swin, "norm", (2, 3, 112, 112), from_channels_last),
    (make_swin, "layers.1.blocks.1.norm1", (2, 3, 112, 112), from_channels_last),
    (make_vit, "blocks.5.norm1", (2, 3, 160, 160), from_tokens),
    (make_vit, "blocks.3", (2, 3, 160, 160), from_tokens),
]


def ours(model, layer, x, classes, method):
    """Maps (B,h,w) of one class per image, of the layer's size, with a maximum of 1."""
    rows = [[number] for number in classes]
    results = generate(model, x, rows, scales=[1.0], flip=False, size="feature", method=method, layer=layer)
    return torch.cat([result.maps for result in results])


def peak_one(maps):
    return maps / maps.amax(dim=(1, 2), keepdim=True).clamp(min=1e-30)


@pytest.mark.parametrize(("make", "layer", "shape", "reshape"), CASES)
@pytest.mark.parametrize("method", METHOD_NAMES)
def test_maps_are_those_of_pytorch_grad_cam(make, layer, shape, reshape, method):
    package = pytest.importorskip("pytorch_grad_cam")
    names = {"gradcam": "GradCAM", "gradcam++": "GradCAMPlusPlus", "hirescam": "HiResCAM", "layercam": "LayerCAM"}
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    model, x, classes = make(), torch.randn(shape), [2, 5]
    module = model.get_submodule(layer)
    targets = [ClassifierOutputTarget(number) for number in classes]
    with getattr(package, names[method])(model, [module], reshape_transform=reshape) as cam:
        outputs = cam.activations_and_grads(x)
        sum(target(output) for target, output in zip(targets, outputs, strict=True)).backward()
        recorded = cam.activations_and_grads
        features, gradients = recorded.activations[0].numpy(), recorded.gradients[0].numpy()
        theirs = cam.get_cam_image(x, module, targets, features, gradients, False)
    expected = peak_one(torch.from_numpy(np.maximum(theirs, 0)).float())
    torch.testing.assert_close(ours(model, module, x, classes, method), expected, atol=1e-4, rtol=0)


# torch-cam's Grad-CAM++ divides a copy of its weights, so that they stay undivided; its map is not the published one.
@pytest.mark.parametrize("layer", ["layer4", "layer3"])
@pytest.mark.parametrize(("method", "name"), [("gradcam", "GradCAM"), ("layercam", "LayerCAM")])
def test_maps_are_those_of_torch_cam(layer, method, name):
    package = pytest.importorskip("torchcam.methods")
    model, x, classes = make_cnn(), torch.randn(2, 3, 96, 128), [2, 5]
    with getattr(package, name)(model, layer) as extractor:
        scores = model(x)
        (theirs,) = extractor(classes, scores, normalized=False)
    found = ours(model, layer, x, classes, method)
    torch.testing.assert_close(found, peak_one(theirs.detach().relu()), atol=1e-4, rtol=0)


@pytest.mark.parametrize(("make", "size"), [(make_cnn, (96, 128)), (make_vit, (160, 160)), (make_swin, (112, 112))])
@pytest.mark.parametrize("method", METHOD_NAMES)
def test_classes_of_one_pass_are_those_of_passes_of_their_own(make, size, method):
    model, x = make(), torch.randn(2, 3, *size)
    together = generate(model, x, [[0, 3, 6], [2]], scales=[1.0], method=method)
    for image, row, result in zip(x, [[0, 3, 6], [2]], together, strict=True):
        alone = [generate(model, image[None], [[number]], scales=[1.0], method=method)[0].maps for number in row]
        torch.testing.assert_close(result.maps, torch.cat(alone), atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("method", ["gradcam", "layercam"])
def test_no_backward_pass_goes_below_the_layer(method):
    model = make_cnn()
    generate(model, torch.randn(1, 3, 64, 64), [[0]], scales=[1.0], method=method)  # finds the layers
    below = []
    model.layer2.register_full_backward_hook(lambda *_: below.append(1))
    above = []
    model.layer4.register_full_backward_hook(lambda *_: above.append(1))
    generate(model, torch.randn(2, 3, 64, 64), [[0, 1], [2]], scales=[1.0], method=method, layer="layer3")
    assert not below
    assert len(above) == 2  # one for each class of the image that has most


@pytest.mark.parametrize("pool", ["avg", "max", "avgmax", "catavgmax"])
def test_the_class_activation_map_is_exact_for_every_pooling_of_timm(pool):
    torch.manual_seed(0)
    model = timm.create_model("test_resnet", num_classes=7, global_pool=pool, zero_init_last=False).eval()
    x = torch.randn(2, 3, 96, 128)
    with torch.no_grad():
        features, weight = (
            model.layer4(
                model.layer3(model.layer2(model.layer1(model.maxpool(model.act1(model.bn1(model.conv1(x)))))))
            ),
            model.fc.weight,
        )
        weight = weight[:, :512] + weight[:, 512:] if pool == "catavgmax" and weight.shape[1] == 1024 else weight
        weight = weight if weight.shape[1] == features.shape[1] else sum(weight.chunk(2, dim=1))
        expected = torch.einsum("kc,bchw->bkhw", weight, features).relu()
    for method in ("auto", "cam"):
        results = generate(
            model, x, [[1, 4], [1, 4]], scales=[1.0], flip=False, size="feature", method=method, normalize="none"
        )
        for image, result in enumerate(results):
            torch.testing.assert_close(result.maps, expected[image, [1, 4]], atol=1e-5, rtol=1e-4)
            torch.testing.assert_close(result.scores, model(x)[image, [1, 4]].sigmoid(), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("scales", [(1.0,), (1.0, 0.5, 1.5)])
def test_hirescam_is_the_class_activation_map_where_that_is_exact(scales):
    model, images = make_cnn(), [torch.randn(3, 96, 128), torch.randn(3, 75, 64)]
    exact, gradients = (
        generate(model, images, [[1, 4], [0]], scales=scales, method=name) for name in ("cam", "hirescam")
    )
    for one, other in zip(exact, gradients, strict=True):
        torch.testing.assert_close(one.maps, other.maps, atol=1e-4, rtol=1e-3)


def test_head_that_is_a_convolution_before_the_pooling_has_exact_maps():
    torch.manual_seed(0)
    head = nn.Conv2d(8, 5, 1)
    model = nn.Sequential(nn.Conv2d(3, 8, 3, 4, 1), nn.ReLU(), head, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    x = torch.randn(1, 3, 64, 96)
    (result,) = generate(model, x, [[0, 3]], scales=[1.0], flip=False, size="feature", method="cam", normalize="none")
    with torch.no_grad():
        expected = F.conv2d(model[1](model[0](x)), head.weight)[0, [0, 3]].relu()
    torch.testing.assert_close(result.maps, expected)


def test_a_transformer_that_reads_its_class_token_gets_maps_of_the_last_block_that_reads_the_others():
    model = make_vit()
    (result,) = generate(model, [torch.randn(3, 96, 128)], [[1, 2]], scales=[1.0], size="feature")
    assert result.maps.shape == (2, 6, 8)
    assert result.maps.amax() > 0


def make_small_vit(kind=VisionTransformer, **options):
    torch.manual_seed(0)
    sizes = {"img_size": 64, "patch_size": 16, "embed_dim": 32, "depth": 3, "num_heads": 4, "num_classes": 7}
    return kind(**(sizes | options)).eval()


@pytest.mark.parametrize(
    ("model", "short"),
    [
        (make_small_vit(), True),
        (make_small_vit(reg_tokens=3, init_values=0.1, qkv_bias=False, scale_attn_norm=True), True),
        (make_small_vit(VisionTransformerDistilled), True),
        (make_small_vit(qk_norm=True), False),
        (make_small_vit(global_pool="avg"), False),
    ],
)
@pytest.mark.parametrize("method", METHOD_NAMES)
def test_the_last_block_computed_for_the_class_token_alone_gives_the_same_maps(model, short, method, monkeypatch):
    x, labels = torch.randn(2, 3, 64, 64), [[0, 3, 6], [2]]
    own = {"scales": [1.0], "method": method, "layer": "blocks.2.norm1"}
    assert make_classifier(model).dry_run.short is short
    found = generate(model, x, labels, **own)
    monkeypatch.setattr(Classifier, "_short_model", lambda self, layer: self.model)
    for one, other in zip(found, generate(model, x, labels, **own), strict=True):
        torch.testing.assert_close(one.maps, other.maps, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(one.scores, other.scores)


def test_hooks_in_the_last_block_are_not_left_out():
    model, calls = make_small_vit(), []
    model.blocks[2].mlp.register_forward_hook(lambda module, args, output: calls.append(output.shape[1]) or 0 * output)
    generate(model, torch.randn(1, 3, 64, 64), [[2]], scales=[1.0], flip=False)
    assert set(calls) == {17}


def test_layer_of_a_patch_learning_network_is_found_by_the_name_of_its_backbone():
    torch.manual_seed(0)
    model = create_model("test_resnet", 5, cuts=["layer2"], pretrained=False, zero_init_last=False).eval()
    x = torch.randn(1, 3, 64, 96)
    names = ("layer3", "backbone.layer3", model.backbone.layer3)
    first, *others = (generate(model, x, [[1]], method="gradcam", layer=name)[0].maps for name in names)
    assert all(torch.equal(first, other) for other in others)
    with torch.no_grad():
        features = model.backbone.layer3(
            model.backbone.layer2(
                model.backbone.layer1(
                    model.backbone.maxpool(model.backbone.act1(model.backbone.bn1(model.backbone.conv1(x))))
                )
            )
        )
    features.requires_grad_()
    logits = model.pool(sum(model.fusion.branch_class_maps([model.backbone.layer4(features)] * 2)))
    (gradient,) = torch.autograd.grad(logits[0, 1], features)
    expected = (gradient.mean(dim=(2, 3), keepdim=True) * features).sum(1).relu().detach()
    (found,) = generate(model, x, [[1]], method="gradcam", layer="layer3", scales=[1.0], flip=False, size="feature")
    torch.testing.assert_close(found.maps, peak_one(expected), atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize(
    ("layer", "error", "message"),
    [
        ("fc", PPLValueError, r"layer 'fc' of 'test_resnet' returns no map.*layers with a map are .*layer4"),
        ("layer5", PPLValueError, "no layer 'layer5'; did you mean 'layer4'"),
        (nn.Linear(1, 1), PPLValueError, "a Linear that is no part of 'test_resnet'"),
        (4, PPLTypeError, "layer must be a module or the name of one, got int"),
    ],
)
def test_a_layer_without_a_map_is_refused_with_those_that_have_one(layer, error, message):
    with pytest.raises(error, match=message):
        generate(make_cnn(), torch.randn(1, 3, 64, 64), [[0]], method="gradcam", layer=layer)


def test_gradients_of_all_branches_are_refused_with_the_reason():
    model = create_model("test_resnet", 5, cuts=["layer2"], pretrained=False)
    with pytest.raises(PPLValueError, match="use branch='unpatched', or method='cam'"):
        generate(model, torch.randn(1, 3, 64, 64), [[0]], method="gradcam", branch="all")


def test_a_method_of_ones_own_is_a_rule_and_a_line():
    """XGrad-CAM: the mean of gradients weighted by the share of the features."""

    def rule(features, gradients):
        sums = features.sum(dim=(2, 3), keepdim=True) + 1e-7
        return torch.einsum("nc,nchw->nhw", (gradients * features / sums).sum(dim=(2, 3)), features)

    register_method("test_xgradcam", gradient_method(rule))
    assert "test_xgradcam" in METHODS
    package = pytest.importorskip("pytorch_grad_cam")
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    model, x = make_cnn(), torch.randn(1, 3, 96, 128)
    with package.XGradCAM(model, [model.layer4]) as cam:
        theirs = cam(x, [ClassifierOutputTarget(3)])
        recorded = cam.activations_and_grads
        theirs = cam.get_cam_image(
            x, model.layer4, [], recorded.activations[0].numpy(), recorded.gradients[0].numpy(), False
        )
    expected = peak_one(torch.from_numpy(np.maximum(theirs, 0)).float())
    found = ours(model, "layer4", x, [3], "test_xgradcam")
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


def test_another_method_of_a_known_name_is_refused():
    with pytest.raises(PPLValueError, match="a CAM method named 'gradcam' exists already"):
        register_method("gradcam", gradient_method(lambda features, gradients: features.sum(1)))
