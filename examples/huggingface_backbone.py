"""Use a ConvNeXt and a Swin of Hugging Face's `transformers` as backbones.

Needs `pip install "ppl-wsss[hf]"`. The networks here are tiny, with random weights;
`ConvNextBackbone.from_pretrained("facebook/convnext-tiny-224")` and
`SwinBackbone.from_pretrained("microsoft/swin-tiny-patch4-window7-224")` have the same stages, four of each.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

import ppl
from ppl.cam import generate
from ppl.extras import require


def convnext(transformers: Any) -> tuple[nn.Module, list[str]]:
    config = transformers.ConvNextConfig(hidden_sizes=[16, 32, 48, 64], depths=[1, 1, 2, 1])
    return transformers.ConvNextBackbone(config), [f"encoder.stages.{index}" for index in range(4)]


def swin(transformers: Any) -> tuple[nn.Module, list[str]]:
    config = transformers.SwinConfig(embed_dim=16, depths=[2, 2, 2], num_heads=[1, 2, 4], window_size=4)
    # The final map is read after its norm. Use SwinBackbone: SwinModel shrinks its windows permanently on small maps.
    stages = [f"swin.encoder.layers.{index}" for index in range(2)] + ["hidden_states_norms.stage3"]
    return transformers.SwinBackbone(config), stages


def main() -> None:
    transformers = require("transformers", "hf")
    for make in (convnext, swin):
        torch.manual_seed(0)
        backbone, stages = make(transformers)
        model = ppl.PPLNet(backbone, num_classes=3, stages=stages, cuts=stages[-3:-1]).eval()
        print(f"{type(backbone).__name__}: cuts after {model.cuts}, stride {model.stride}")
        result = generate(model, torch.randn(1, 3, 96, 128), [[0, 2]], scales=[1.0, 1.5])[0]
        print(f"classes {result.classes.tolist()}, maps {tuple(result.maps.shape)}")


if __name__ == "__main__":
    main()
