"""Add a loss from your own module: the focal loss (Lin et al., ICCV 2017), for `train: {loss: focal}` in a recipe."""

import torch
import torch.nn.functional as F

from ppl.train import TrainConfig, register_loss


def focal(logits: torch.Tensor, targets: torch.Tensor, *, gamma: float = 2.0) -> torch.Tensor:
    """Weigh the binary cross-entropy of each class by how wrong its probability is."""
    wrong = (targets - logits.sigmoid()).abs()
    return (wrong**gamma * F.binary_cross_entropy_with_logits(logits, targets, reduction="none")).mean()


register_loss("focal", focal)


def main() -> None:
    config = TrainConfig(loss="focal", loss_options={"gamma": 1.5})  # wrong options are refused here
    print(f"{config.loss} loss {focal(torch.zeros(4, 3), torch.ones(4, 3), **config.loss_options):.3f}")


if __name__ == "__main__":
    main()
