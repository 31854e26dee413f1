"""Train a `PPLNet` in a plain PyTorch loop; the only line about patches is `model.set_phase`.

`ppl.train.fit` adds checkpoints, mixed precision, several GPUs and resuming.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F

import ppl
from ppl.data import eval_loader, eval_transform, make_creatures, open_dataset, train_loader, train_transform
from ppl.metrics import mean_average_precision


def main(images: int = 96, epochs: int = 6, size: int = 96, out: Path = Path("runs/examples/loop")) -> None:
    root = make_creatures(out / "creatures", train=images, val=images // 4, size=size)
    train, val = open_dataset(root, "train"), open_dataset(root, "val")

    torch.manual_seed(0)
    model = ppl.create_model("test_resnet", len(train.classes), cuts=["layer2", "layer3"], pretrained=False)
    model.classes = train.classes
    mean, std = model.data_config["mean"], model.data_config["std"]
    batches = train_loader(train, train_transform(size, mean, std), batch_size=16)
    optimizer = torch.optim.AdamW(
        [
            {"params": model.backbone.parameters(), "lr": 1e-3},
            {"params": model.fusion.parameters(), "lr": 1e-2},  # ten times the rate for the new classifier
        ]
    )
    for epoch in range(epochs):
        # Progressive: equal shares of the epochs, each phase cuts one stage deeper.
        model.set_phase(epoch * model.num_phases // epochs)
        batches.set_epoch(epoch)
        total = 0.0
        model.train()
        for pixels, targets, _ in batches:
            loss = F.multilabel_soft_margin_loss(model(pixels), targets)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item()
        print(f"epoch {epoch + 1}, cut after {model.cuts[model.phase]}: loss {total / len(batches):.3f}")

    model.eval()
    with torch.inference_mode():
        logits = torch.cat([model(batch.images) for batch in eval_loader(val, eval_transform(size, mean, std), 16)])
    print(f"validation mAP {mean_average_precision(logits, val.targets()):.1%}")
    ppl.save_model(model, out / "model.safetensors")
    print(f"weights, classes and all that is needed to build the model again: {out / 'model.safetensors'}")


if __name__ == "__main__":
    main()
