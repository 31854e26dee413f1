"""A ConvNeXt of Hugging Face's `transformers` as a backbone.

Needs `pip install "ppl-wsss[hf]"`. The network here is a tiny one with random weights;
`ConvNextBackbone.from_pretrained("facebook/convnext-tiny-224")` has the same stages.
"""

from __future__ import annotations

import torch

import ppl
from ppl.cam import generate
from ppl.extras import require


def main() -> None:
    transformers = require("transformers", "hf")
    torch.manual_seed(0)
    config = transformers.ConvNextConfig(hidden_sizes=[16, 32, 48, 64], depths=[1, 1, 2, 1])
    backbone = transformers.ConvNextBackbone(config)
    stages = [f"encoder.stages.{index}" for index in range(4)]
    model = ppl.PPLNet(backbone, num_classes=3, stages=stages, cuts=stages[1:3]).eval()
    print(f"cuts after {model.cuts}, stride {model.stride}")
    result = generate(model, torch.randn(1, 3, 96, 128), [[0, 2]], scales=[1.0, 1.5])[0]
    print(f"classes {result.classes.tolist()}, maps {tuple(result.maps.shape)}")


if __name__ == "__main__":
    main()
