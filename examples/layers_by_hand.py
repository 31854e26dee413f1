"""Patch learning from single layers: split a timm network, run its second half on patches, fuse both branches.

`ppl.create_model` does the same for any timm backbone.
"""

from __future__ import annotations

import timm
import torch
from torch import Tensor, nn

from ppl.layers import GranularityFusion, PatchLearner


class PatchClassifier(nn.Module):
    """One patch branch and the un-patched branch, as in "stage 1" of the paper's figure 2."""

    def __init__(self, num_classes: int, grid: int = 2) -> None:
        super().__init__()
        net = timm.create_model("test_resnet", pretrained=False)
        self.head = nn.Sequential(net.conv1, net.bn1, net.act1, net.maxpool, net.layer1, net.layer2)
        self.tail = nn.Sequential(net.layer3, net.layer4)
        self.patched_tail = PatchLearner(self.tail, grid)  # the same weights, patch by patch
        self.fusion = GranularityFusion((net.num_features, net.num_features), num_classes)

    def maps(self, x: Tensor) -> list[Tensor]:
        """Return the final maps (B,C,h,w) of the patched and of the un-patched features."""
        features = self.head(x)  # once, for both branches
        return [self.patched_tail(features), self.tail(features)]

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (B,K)."""
        return self.fusion(self.maps(x))


def main() -> None:
    torch.manual_seed(0)
    model = PatchClassifier(num_classes=4).eval()
    x = torch.randn(2, 3, 135, 207)  # any size
    with torch.inference_mode():
        patched, whole = maps = model.maps(x)
        print(f"final map, patched {tuple(patched.shape)}, un-patched {tuple(whole.shape)}")
        difference = (patched - whole).abs().mean() / whole.abs().mean()
        print(f"the two differ by {difference:.0%}: near its borders a patch does not see what lies next to it")

        # The classifier of the concatenated maps is the sum of one classifier per branch.
        wide = nn.Conv2d(2 * whole.shape[1], 4, 1, bias=False)
        wide.weight.copy_(torch.cat([layer.weight for layer in model.fusion.classifiers], dim=1))
        error = (wide(torch.cat(maps, dim=1)) - model.fusion.class_maps(maps)).abs().max()
        print(f"concatenating first changes the class maps by {error:.0e}")
    print(f"logits {tuple(model(x).shape)}")


if __name__ == "__main__":
    main()
