"""From CAM files to a trained affinity network in one call."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from ppl.errors import PPLValueError
from ppl.refine.affinity.config import AffinityConfig, ConfidentLabelConfig
from ppl.refine.affinity.labelled_images import LabelledImages
from ppl.refine.affinity.labels import confident_label_folder
from ppl.refine.affinity.training import AffinitySummary, fit_affinity
from ppl.refine.affinity_network import AffinityNetwork
from ppl.refine.jobs import RefineJob
from ppl.refine.specs import RefinerList

__all__ = ["learn_affinity"]

_DEFAULTS = ConfidentLabelConfig()


def learn_affinity(
    jobs: Iterable[RefineJob],
    out: str | os.PathLike[str],
    network: AffinityNetwork,
    config: AffinityConfig | None = None,
    *,
    foreground: float = _DEFAULTS.foreground,
    background: float = _DEFAULTS.background,
    refiners: RefinerList = _DEFAULTS.refiners,
    num_workers: int = -1,
    device: str = "auto",
    progress: bool = True,
) -> AffinitySummary:
    """Make confident labels of CAMs and train an affinity network on them; both parts resume.

    The refiner `random_walk: {affinity: out/affinity.safetensors}` uses the network.

    Args:
        jobs: the images and their CAMs; images without usable files are left out.
        out: folder of `labels/`, of the files of the training and of `affinity.safetensors`.
        network: the network to train.
        config: settings of the training; None for the defaults.
        foreground: as for `confident_labels`.
        background: as for `confident_labels`.
        refiners: as for `confident_labels`.
        num_workers: number of workers that make labels; -1 for one per core.
        device: device of the training: "auto", "cpu", "cuda", "cuda:1", ...
        progress: show progress bars if standard error is a terminal.

    Returns:
        The losses, the path of the network, and the images that could not be labelled.

    Raises:
        PPLValueError: if no image could be labelled, or `out` holds results of other settings.

    Example:
        >>> import tempfile
        >>> import numpy as np
        >>> from PIL import Image
        >>> with tempfile.TemporaryDirectory() as name:
        ...     folder = Path(name)
        ...     Image.new("RGB", (48, 48)).save(folder / "a.png")
        ...     job = RefineJob("a", folder / "a.png", lambda: (np.eye(6, dtype=np.float32)[None], np.array([2])))
        ...     config = AffinityConfig(epochs=1, crop=48, radius=3, num_workers=0)
        ...     summary = learn_affinity([job], folder / "out", AffinityNetwork("test_resnet"), config, refiners=None)
        ...     summary.path.relative_to(folder).as_posix()
        'out/affinity.safetensors'
    """
    out, jobs = Path(out), list(jobs)
    labelled = confident_label_folder(
        jobs,
        out / "labels",
        foreground=foreground,
        background=background,
        refiners=refiners,
        num_workers=num_workers,
        progress=progress,
    )
    if jobs and len(labelled.bad) == len(jobs):
        raise PPLValueError(
            f"none of the {len(jobs)} images could be labelled; {labelled.bad[0].image_id}: {labelled.bad[0].reason}"
        )
    pairs = LabelledImages([(job.image, out / "labels" / f"{job.image_id}.png") for job in jobs])
    summary = fit_affinity(network, pairs, config, out=out, device=device, progress=progress)
    return replace(summary, bad=labelled.bad)
