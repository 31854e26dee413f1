"""Use a module of your own as a backbone: any module (B,3,H,W) -> (B,C,h,w) with named stages."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

import ppl


def block(channels: int, features: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(channels, features, 3, stride=2, padding=1), nn.BatchNorm2d(features), nn.ReLU())


def make_backbone() -> nn.Sequential:
    return nn.Sequential(block(3, 16), block(16, 32), block(32, 64), block(64, 128))


def main(out: Path = Path("runs/examples/custom")) -> None:
    torch.manual_seed(0)
    stages = ["0", "1", "2", "3"]  # dotted module names, shallow to deep
    model = ppl.PPLNet(make_backbone(), num_classes=5, stages=stages, cuts=["1", "2"], grids=[(2, 2), (1, 3)])
    print(f"training phases: {model.num_phases}, cuts after {model.cuts}, grids {model.grids}")
    x = torch.randn(2, 3, 100, 150)
    for phase in range(model.num_phases):
        model.set_phase(phase)
        print(f"phase {phase}: class maps {tuple(model.class_maps(x).shape)}, logits {tuple(model(x).shape)}")

    # A checkpoint holds everything except the module's code, so loading needs a new module.
    out.mkdir(parents=True, exist_ok=True)
    ppl.save_model(model, out / "model.safetensors")
    again = ppl.load_model(out / "model.safetensors", backbone=make_backbone())
    print(f"the loaded model gives the same logits: {torch.equal(again.eval()(x), model.eval()(x))}")

    try:
        ppl.PPLNet(make_backbone(), 5, stages=stages, cuts=["4"])
    except ppl.PPLError as error:
        print(f"a cut that does not exist: {error}")


if __name__ == "__main__":
    main()
