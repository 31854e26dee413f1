"""Use torchvision's ResNet, ConvNeXt and Swin as backbones, by the names of their stages."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn
from torchvision.models import ConvNeXt, ResNet, SwinTransformer
from torchvision.models.convnext import CNBlockConfig
from torchvision.models.resnet import BasicBlock

import ppl
from ppl.cam import generate


# Small networks for a quick run. torchvision.models.resnet50(weights="DEFAULT") etc. have the same stages.
def resnet() -> nn.Module:
    return ResNet(BasicBlock, [1, 1, 1, 1])


def convnext() -> nn.Module:
    return ConvNeXt([CNBlockConfig(16, 32, 1), CNBlockConfig(32, 64, 1), CNBlockConfig(64, 128, 1)])


def swin() -> nn.Module:
    return SwinTransformer([4, 4], 24, [2, 2, 2], [2, 4, 8], [4, 4])


BACKBONES: dict[str, tuple[Callable[[], nn.Module], list[str]]] = {
    "ResNet": (resnet, ["layer1", "layer2", "layer3", "layer4"]),
    "ConvNeXt": (convnext, ["features.1", "features.3", "features.5"]),
    "Swin": (swin, ["features.1", "features.3", "features.5"]),
}


def main() -> None:
    for name, (make, stages) in BACKBONES.items():
        torch.manual_seed(0)
        model = ppl.PPLNet(make(), num_classes=3, stages=stages, mode="explicit", cuts=stages[-3:-1]).eval()
        images = torch.randn(2, 3, 128, 128)
        result = generate(model, images, [[0], [1, 2]], scales=[1.0, 0.5])[1]
        print(f"{name}: cuts after {model.cuts}, stride {model.stride}, maps {tuple(result.maps.shape)}")


if __name__ == "__main__":
    main()
