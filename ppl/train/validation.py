"""Classification mAP on held-out images."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils.data import DataLoader

from ppl.backbones.state import EvalMode
from ppl.metrics import mean_average_precision
from ppl.models import PPLNet
from ppl.train.config import TrainConfig

__all__ = ["validate"]


@torch.no_grad()
def validate(model: PPLNet, loader: DataLoader[Any], accelerator: Any, config: TrainConfig) -> float:
    """Mean average precision of the model's last stage: of the classifier that CAMs are read from.

    Measured on the last stage whichever is in training, so that epochs can be compared with each other and the number
    is that of the model as it is saved.

    Args:
        model: run in eval mode at its last stage; both are restored.
        loader: `Batch`es of validation images; images that come twice count once.
        accelerator: of Hugging Face accelerate.
        config: for the memory layout of the images.

    Returns:
        mAP in [0, 1] over the classes that occur; NaN if none does.
    """
    phase = model.phase
    count, classes = len(loader.dataset), model.num_classes  # type: ignore[arg-type]
    scores = torch.zeros(count, classes, device=accelerator.device)
    targets = torch.zeros(count, classes, device=accelerator.device)
    model.set_phase(model.num_phases - 1)
    try:
        with EvalMode(model.modules()):
            for batch in loader:
                images = batch.images.to(accelerator.device, non_blocking=True)
                if config.channels_last:
                    images = images.contiguous(memory_format=torch.channels_last)
                with accelerator.autocast():
                    logits = model(images).float()
                found = (logits, batch.targets.to(accelerator.device), batch.indices.to(accelerator.device))
                logits, tags, indices = accelerator.gather(found)
                scores[indices], targets[indices] = logits, tags
    finally:
        model.set_phase(phase)
    return float(mean_average_precision(scores, targets))
