"""Training of an affinity network, from start to end."""

from __future__ import annotations

import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ppl.engine import Trainer, open_accelerator
from ppl.io import atomic_write
from ppl.parallel import BadFile
from ppl.refine.affinity.config import AffinityConfig
from ppl.refine.affinity.task import AffinityTask
from ppl.refine.affinity_network import AffinityNetwork

__all__ = ["AffinitySummary", "fit_affinity"]

_RESULT = "affinity.safetensors"


@dataclass(frozen=True)
class AffinitySummary:
    """The result of a training.

    Attributes:
        losses: mean training loss of every epoch.
        path: the network, for `load_affinity` and the refiner `random_walk`.
        seconds: wall time of this call.
        val_losses: mean loss on the held-out pairs after every epoch; empty without them.
        bad: images that could not be labelled, if `learn_affinity` made the labels.
    """

    losses: tuple[float, ...]
    path: Path
    seconds: float
    val_losses: tuple[float, ...] = ()
    bad: tuple[BadFile, ...] = ()


def fit_affinity(
    network: AffinityNetwork,
    pairs: Any,
    config: AffinityConfig | None = None,
    *,
    out: str | os.PathLike[str],
    val: Any = None,
    device: str = "auto",
    progress: bool = True,
) -> AffinitySummary:
    """Train the head of an affinity network on confident labels, or continue an interrupted training.

    The folder gets the files of every training (`metrics.jsonl`, `last.safetensors`, `best.safetensors`, `state.pt`);
    at the end `affinity.safetensors` is the best network, or the last one without held-out pairs. After an
    interruption the same call continues, to the weights of a training without one.

    Args:
        network: the network. The weights of its head are drawn anew from the seed; at the end it has the weights of
            the last epoch.
        pairs: map-style dataset of `(image, labels)`: `(H, W, 3)` uint8 and `(H, W)` integers with 0 background and
            255 unsure. `LabelledImages` reads pairs from files.
        config: the settings; None for the defaults.
        out: the folder of the training.
        val: held-out pairs, whose loss decides which epoch is the best; None for no validation.
        device: "auto", "cpu", "cuda", "cuda:1", ...
        progress: show a progress bar if standard error is a terminal.

    Returns:
        The losses and the path of the network.

    Raises:
        PPLValueError: if there are no pairs, none of them has two confident cells near each other, or `out` holds a
            training with other settings, other weights of the backbone or other labels.
        NonFiniteLossError: if the loss becomes NaN or infinite.

    Example:
        >>> import tempfile
        >>> import numpy as np
        >>> labels = np.repeat(np.array([[0, 1]], np.uint8), 24, axis=1).repeat(48, axis=0)
        >>> pairs = [(labels[..., None].repeat(3, axis=2) * 200, labels)] * 2
        >>> config = AffinityConfig(epochs=1, batch_size=2, crop=48, radius=3, num_workers=0)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     summary = fit_affinity(AffinityNetwork("test_resnet"), pairs, config, out=folder)
        >>> len(summary.losses)
        1
    """
    config = config or AffinityConfig()
    start, out = time.perf_counter(), Path(out)
    with open_accelerator(config.precision, device, seed=config.seed) as accelerator:
        task = AffinityTask(network, pairs, val, config, accelerator)
        summary = Trainer(task, accelerator).run(out, progress=progress)
        network.eval()
        if accelerator.is_main_process:
            with summary.best_path.open("rb") as best, atomic_write(out / _RESULT) as handle:
                shutil.copyfileobj(best, handle)
        accelerator.wait_for_everyone()
    return AffinitySummary(
        losses=tuple(line["loss"] for line in summary.history),
        path=out / _RESULT,
        seconds=time.perf_counter() - start,
        val_losses=() if val is None else tuple(line["val_loss"] for line in summary.history),
    )
