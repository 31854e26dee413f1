"""Classification mAP on validation images."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

from ppl.backbones.eval_mode import EvalMode
from ppl.metrics import mean_average_precision
from ppl.models import PPLNet

__all__ = ["validate"]


@torch.no_grad()
def validate(model: PPLNet, loader: Iterable[Any], accelerator: Any, channels_last: bool = True) -> float:
    """Return the mean average precision of the last phase's classifier, from which CAMs are read.

    The phase that trains does not matter, so that epochs can be compared with each other, and the score is that of
    the saved model.

    Args:
        model: run in eval mode at its last phase; mode and phase are restored.
        loader: a `DataLoader` of `Batch`es; images that come twice count once.
        accelerator: from `open_accelerator`.
        channels_last: memory layout of the images.

    Returns:
        mAP in [0, 1] over the classes that occur; NaN if none does.
    """
    phase = model.phase
    count, classes = len(loader.dataset), model.num_classes  # type: ignore[attr-defined]
    scores = torch.zeros(count, classes, device=accelerator.device)
    targets = torch.zeros(count, classes, device=accelerator.device)
    model.set_phase(model.num_phases - 1)
    try:
        with EvalMode(model.modules()):
            for batch in loader:
                images = batch.images.to(accelerator.device, non_blocking=True)
                if channels_last:
                    images = images.contiguous(memory_format=torch.channels_last)
                with accelerator.autocast():
                    logits = model(images).float()
                found = (logits, batch.targets.to(accelerator.device), batch.indices.to(accelerator.device))
                logits, tags, indices = accelerator.gather(found)
                scores[indices], targets[indices] = logits, tags
    finally:
        model.set_phase(phase)
    return float(mean_average_precision(scores, targets))
