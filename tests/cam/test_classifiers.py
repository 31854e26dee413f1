"""Classifiers of every origin: what `generate` reads off modules that return logits in one way or another."""

from __future__ import annotations

import copy
from types import SimpleNamespace

import pytest
import timm
import torch
import torchvision
from torch import nn

from ppl.cam import METHODS, check_maps, generate
from ppl.errors import PPLTypeError, PPLValueError


class Wrapped(nn.Module):
    """A classifier whose logits are a part of what it returns."""

    def __init__(self, wrap):
        super().__init__()
        torch.manual_seed(0)
        self.net, self.wrap = timm.create_model("test_resnet", num_classes=5, zero_init_last=False).eval(), wrap

    def forward(self, x):
        return self.wrap(self.net(x))


def maps_of(model, x, rows, **settings):
    return torch.cat([one.maps for one in generate(model, x, rows, scales=[1.0, 0.5], **settings)])


@pytest.mark.parametrize(
    "wrap",
    [
        lambda logits: SimpleNamespace(logits=logits, loss=None),
        lambda logits: {"logits": logits, "loss": None},
        lambda logits: (logits, torch.zeros(1)),
        lambda logits: [logits],
    ],
    ids=["attribute", "mapping", "tuple", "list"],
)
@pytest.mark.parametrize("method", ["auto", "gradcam"])
def test_logits_are_found_in_what_a_model_returns(wrap, method):
    model, x = Wrapped(wrap), torch.randn(2, 3, 64, 96)
    rows = [[0, 3], [2]]
    expected = maps_of(model.net, x, rows, method=method)
    torch.testing.assert_close(maps_of(model, x, rows, method=method), expected)


@pytest.mark.parametrize(
    "wrap", [lambda logits: logits[:, :, None], lambda logits: "logits", lambda logits: logits.sum()]
)
def test_a_model_that_returns_no_logits_is_refused_with_what_it_returns(wrap):
    with pytest.raises(PPLTypeError, match=r"the model must return logits \(B,K\) for 2 images, got"):
        generate(Wrapped(wrap), torch.randn(1, 3, 64, 64), [[0]])


TORCHVISION = [
    ("resnet18", "cam"),
    ("squeezenet1_1", "cam"),
    ("mobilenet_v2", "cam"),
    ("mobilenet_v3_small", "hirescam"),
    ("shufflenet_v2_x0_5", "cam"),
    ("mnasnet0_5", "cam"),
    ("densenet121", "hirescam"),
    ("convnext_tiny", "hirescam"),
    ("alexnet", "hirescam"),
]


@pytest.mark.parametrize(("name", "read_by"), TORCHVISION)
def test_networks_of_torchvision_have_maps(name, read_by):
    torch.manual_seed(0)
    model = torchvision.models.get_model(name, num_classes=6).eval()
    x = torch.randn(1, 3, 160, 128)
    found = maps_of(model, x, [[1, 4]])
    assert found.shape == (2, 160, 128)
    assert found.isfinite().all()
    torch.testing.assert_close(found, maps_of(model, x, [[1, 4]], method=read_by))


def test_a_vision_transformer_of_torchvision_takes_its_own_size_and_says_so():
    torch.manual_seed(0)
    from torchvision.models import VisionTransformer

    model = VisionTransformer(64, 16, 3, 2, 32, 64, num_classes=5).eval()
    nn.init.normal_(model.heads.head.weight)
    (result,) = generate(model, torch.randn(1, 3, 64, 64), [[1, 2]], scales=[1.0], size="feature")
    assert result.maps.shape == (2, 4, 4)
    assert result.maps.amax() > 0
    with pytest.raises(
        PPLValueError, match="'VisionTransformer' was built for images of 64x64 and does not take 80x80"
    ):
        generate(model, torch.randn(1, 3, 80, 80), [[1]], scales=[1.0])


def test_compiled_and_parallel_modules_are_unwrapped():
    torch.manual_seed(0)
    model, x = timm.create_model("test_resnet", num_classes=5).eval(), torch.randn(1, 3, 64, 64)
    expected = maps_of(model, x, [[1]])
    for wrapped in (torch.compile(model), nn.DataParallel(model), torch.compile(nn.DataParallel(model))):
        assert torch.equal(maps_of(wrapped, x, [[1]]), expected)


def test_a_distributed_module_is_unwrapped(tmp_path):
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        torch.manual_seed(0)
        model, x = timm.create_model("test_resnet", num_classes=5).eval(), torch.randn(1, 3, 64, 64)
        wrapped = nn.parallel.DistributedDataParallel(model)
        assert torch.equal(maps_of(wrapped, x, [[1]]), maps_of(model, x, [[1]]))
    finally:
        torch.distributed.destroy_process_group()


@pytest.mark.parametrize("name", ["test_resnet", "test_vit"])
@pytest.mark.parametrize("method", ["auto", "gradcam", "layercam"])
def test_a_model_in_half_precision_has_about_the_same_maps(name, method):
    torch.manual_seed(0)
    model, x = timm.create_model(name, num_classes=5).eval(), torch.randn(1, 3, 160, 160)
    half = copy.deepcopy(model).bfloat16()
    single, halved = (generate(net, x, [[1, 2]], scales=[1.0], method=method)[0].maps for net in (model, half))
    assert halved.dtype == torch.float32
    assert (single - halved).abs().mean() < 0.05


def test_models_of_one_channel_take_tensors_and_pictures():
    import numpy as np
    from PIL import Image

    torch.manual_seed(0)
    model = timm.create_model("test_resnet", num_classes=5, in_chans=1).eval()
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 96), dtype=np.uint8))
    x = (torch.from_numpy(np.array(picture))[None] / 255 - 0.5) / 0.5
    grey, rgb, array, tensor = generate(model, [picture, picture.convert("RGB"), np.array(picture), x], [[1]] * 4)
    for found in (grey, rgb, array):
        torch.testing.assert_close(found.maps, tensor.maps, atol=1e-5, rtol=1e-4)
    with pytest.raises(PPLValueError, match=r"image 0 must have shape \(1,H,W\), got \(3, 64, 96\)"):
        generate(model, torch.randn(1, 3, 64, 96), [[1]])


def test_models_of_many_channels_take_tensors_alone():
    model = timm.create_model("test_resnet", num_classes=5, in_chans=5).eval()
    assert generate(model, torch.randn(1, 5, 64, 96), [[1]])[0].maps.shape == (1, 64, 96)
    from PIL import Image

    with pytest.raises(PPLTypeError, match=r"read as 3 channels, but the model takes 5: pass normalised tensors"):
        generate(model, [Image.new("RGB", (64, 64))], [[1]])


@pytest.mark.parametrize("method", ["auto", "gradcam++"])
def test_a_model_of_one_class_has_one_map(method):
    model, x = timm.create_model("test_resnet", num_classes=1).eval(), torch.randn(2, 3, 64, 64)
    told, predicted = generate(model, x, [[0], []], method=method), generate(model, x, method=method)
    assert [len(one.classes) for one in told] == [1, 0]
    assert [one.classes.tolist() for one in predicted] == [[0], [0]]


def test_without_labels_a_classifier_of_exclusive_classes_gives_its_best_class():
    torch.manual_seed(0)
    model, x = timm.create_model("test_resnet", num_classes=50).eval(), torch.randn(3, 3, 64, 64)
    nn.init.normal_(model.fc.weight)
    logits = model(x)
    assert ((logits > 0).sum(dim=1) > 5).all()
    for result, row in zip(generate(model, x, scales=[1.0]), logits, strict=True):
        assert result.classes.tolist() == [int(row.argmax())]
    for result, row in zip(generate(model, x, scales=[1.0], multi_label=True), logits, strict=True):
        assert result.classes.tolist() == (row > 0).nonzero()[:, 0].tolist()


def test_weights_that_are_trained_after_the_first_call_count():
    """A head of zeros depends on no layer: what was found then must not be kept."""
    model, x = timm.create_model("test_vit", num_classes=5).eval(), torch.randn(1, 3, 160, 160)
    nn.init.zeros_(model.head.weight)
    assert not generate(model, x, [[1]], scales=[1.0])[0].maps.any()
    nn.init.normal_(model.head.weight)
    assert generate(model, x, [[1]], scales=[1.0])[0].maps.any()


def test_a_head_that_is_replaced_after_the_first_call_counts():
    torch.manual_seed(0)
    model, x = timm.create_model("test_resnet", num_classes=5).eval(), torch.randn(1, 3, 64, 64)
    generate(model, x, [[4]])
    model.reset_classifier(3)
    with pytest.raises(PPLValueError, match=r"classes are 0\.\.2"):
        generate(model, x, [[4]])
    assert generate(model, x, [[2]])[0].maps.shape == (1, 64, 64)


def test_maps_can_be_checked_without_images():
    check_maps(timm.create_model("test_vit").eval(), [(160, 160), (75, 100)], scales=[1.0, 0.5])
    check_maps(timm.create_model("test_vit").eval(), [(160, 160)], method="layercam", layer="blocks.2")
    with pytest.raises(PPLValueError, match="has no exact class maps"):
        check_maps(timm.create_model("test_vit").eval(), [(160, 160)], method="cam")
    check_maps(timm.create_model("test_vit").eval(), [(160, 160)], method="attention_rollout")
    with pytest.raises(PPLValueError, match="has no attention layers"):
        check_maps(timm.create_model("test_resnet").eval(), [(64, 64)], method="attention_rollout")


def test_check_of_maps_runs_a_method_of_a_plugin_once_in_eval_mode(monkeypatch):
    seen = []

    def refusing(classifier, x):
        seen.append((tuple(x.shape[2:]), classifier.model.training))
        raise PPLValueError("this method reads no ResNet")

    monkeypatch.setitem(METHODS._parts, "refusing", refusing)
    model = timm.create_model("test_resnet").train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(PPLValueError, match="reads no ResNet"):
        check_maps(model, [(96, 64), (64, 64)], scales=[1.0, 0.5], method="refusing")
    check_maps(model, [(64, 64)])
    assert seen == [((32, 32), False)]
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("method", ["auto", "hirescam", "layercam"])
@pytest.mark.parametrize("name", ["test_convnext", "test_vit", "test_efficientnet"])
def test_scales_flips_and_mixed_sizes_for_every_method(name, method):
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=5).eval()
    images = [torch.randn(3, *size) for size in [(75, 101), (96, 64), (75, 101)]]
    together = generate(model, images, [[0, 3], [2], [1]], scales=[1.0, 1.5], method=method, batch_size=2)
    for image, row, result in zip(images, [[0, 3], [2], [1]], together, strict=True):
        alone = generate(model, [image], [row], scales=[1.0, 1.5], method=method)[0]
        torch.testing.assert_close(result.maps, alone.maps, atol=1e-4, rtol=1e-3)
        assert result.maps.shape == (len(row), *image.shape[1:])


@pytest.mark.parametrize("method", ["auto", "gradcam", "sharpened_cam"])
def test_the_model_is_left_as_it_was_by_every_method(method):
    model = timm.create_model("test_resnet", num_classes=5).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    random = torch.get_rng_state()
    generate(model, torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)), [[0], [1]], method=method)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(module.training and not module._forward_hooks for module in model.modules())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert torch.equal(torch.get_rng_state(), random)
