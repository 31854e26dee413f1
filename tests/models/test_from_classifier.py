"""A trained classifier becomes a PPLNet with the same logits."""

from __future__ import annotations

import pytest
import timm
import torch
from torch import Tensor, nn
from torchvision.models import ResNet
from torchvision.models.resnet import BasicBlock

from ppl.backbones import UnsupportedBackboneError
from ppl.errors import PPLTypeError
from ppl.models import PPLNet, load_model, save_model


def classifier(name: str, **options: object) -> nn.Module:
    torch.manual_seed(0)
    model: nn.Module = timm.create_model(name, num_classes=7, **options).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    return model


@pytest.mark.parametrize("mode", ["baseline", "control", "progressive", "explicit"])
@pytest.mark.parametrize("name", ["test_resnet", "test_efficientnet", "test_byobnet"])
def test_logits_are_those_of_the_classifier(name: str, mode: str) -> None:
    model = classifier(name)
    state = {key: value.clone() for key, value in model.state_dict().items()}
    net = PPLNet.from_classifier(model, mode=mode)
    x = torch.randn(2, 3, 96, 128)
    torch.testing.assert_close(net(x), model(x), rtol=1e-4, atol=1e-4)
    assert net.fusion.bias is not None
    assert torch.equal(net.fusion.bias, model.get_classifier().bias)  # type: ignore[operator]
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())


class Convolutional(nn.Module):
    """A classifier whose head is a 1x1 convolution before the pooling."""

    def __init__(self, bias: bool = True) -> None:
        super().__init__()
        self.stem, self.body = nn.Conv2d(3, 4, 3, 2, 1), nn.Conv2d(4, 8, 3, 2, 1)
        self.relu, self.head = nn.ReLU(), nn.Conv2d(8, 5, 1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.relu(self.body(self.stem(x).relu()))).mean(dim=(2, 3))  # type: ignore[no-any-return]


@pytest.mark.parametrize("bias", [False, True])
def test_a_convolution_as_head_is_carried_over(bias: bool) -> None:
    model = Convolutional(bias).eval()
    net = PPLNet.from_classifier(model, stages=["stem", "relu"], cuts=["stem"])
    x = torch.randn(2, 3, 32, 48)
    torch.testing.assert_close(net(x), model(x))


def test_a_torchvision_network_is_carried_over_and_trains_on() -> None:
    model = ResNet(BasicBlock, [1, 1, 1, 1], num_classes=6)
    net = PPLNet.from_classifier(model, stages=["layer1", "layer2", "layer3", "layer4"], cuts=["layer2"])
    assert net.training
    net(torch.randn(2, 3, 64, 64)).square().sum().backward()
    assert all(parameter.grad is not None for parameter in net.fusion.parameters())


def test_a_model_with_a_bias_is_saved_and_loaded(tmp_path) -> None:
    net = PPLNet.from_classifier(classifier("test_resnet")).eval()
    save_model(net, tmp_path / "model.safetensors")
    fresh = PPLNet.from_classifier(classifier("test_resnet")).backbone
    x = torch.randn(1, 3, 64, 64)
    assert torch.equal(load_model(tmp_path / "model.safetensors", backbone=fresh).eval()(x), net(x))


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (lambda: classifier("convnext_atto"), "more than average pooling"),
        (lambda: classifier("mobilenetv3_small_050"), "classifies 1024 features, but the final map has 288 channels"),
        (lambda: classifier("test_resnet", global_pool="max"), "more than average pooling"),
        (lambda: classifier("test_vit"), "more than average pooling"),
    ],
)
def test_heads_of_other_kinds_are_refused_by_name(model, message: str) -> None:
    with pytest.raises(UnsupportedBackboneError, match=rf"\(head '.*', Linear\).*{message}"):
        PPLNet.from_classifier(model())


def test_modules_without_a_head_are_refused() -> None:
    with pytest.raises(PPLTypeError, match="no linear layer"):
        PPLNet.from_classifier(nn.Sequential(nn.ReLU()), stages=["0"])
    with pytest.raises(PPLTypeError, match="got str"):
        PPLNet.from_classifier("resnet50")  # type: ignore[arg-type]
