"""Fit a pixel classifier to the CAMs of many images."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ppl.engine.random_state import seeded
from ppl.errors import PPLValueError
from ppl.parallel import BadFile, current_share, gather_bad, guarded, parallel_map, progress_bar, spread
from ppl.refine.apply import apply_refiners
from ppl.refine.jobs import RefineJob, read_probs
from ppl.refine.pixel_network import PixelClassifier
from ppl.refine.pixel_refiner import background_prior, label_probs
from ppl.refine.pixels.config import PixelConfig
from ppl.refine.probabilities import DEFAULT_BACKGROUND, Background
from ppl.refine.specs import RefinerSpec, parse_refiners

__all__ = ["PixelSummary", "fit_pixel_classifier"]


@dataclass(frozen=True)
class PixelSummary:
    """What `fit_pixel_classifier` learned from.

    Args:
        images: number of images.
        loss: mean cross-entropy of the last fifth of the steps.
        agreement: correlation, in -1..1, of the foreground's probability with that of the refined CAMs, on images that
            a fit has not seen: the mean over images, each predicted by a fit to the other half. None if no class is in
            both halves.
        bad: images that could not be used.
    """

    images: int
    loss: float
    agreement: float | None = None
    bad: tuple[BadFile, ...] = ()


@dataclass(frozen=True)
class _Cells:
    """Cells of one image: features `(n, C)`, probabilities `(n, L)`, and the label of each column `(L,)`."""

    image_id: str
    features: Tensor
    probs: Tensor
    labels: Tensor


def fit_pixel_classifier(
    jobs: Iterable[RefineJob],
    network: PixelClassifier,
    config: PixelConfig | None = None,
    *,
    background: Background = DEFAULT_BACKGROUND,
    num_workers: int = -1,
    device: str | torch.device = "cpu",
    progress: bool = True,
) -> PixelSummary:
    """Fit the head of a pixel classifier to refined CAMs; every image compares its own classes and the background only.

    The CAMs are cut by the background rule and refined, and the probabilities are averaged over cells of the backbone.
    The loss is the cross-entropy of a softmax over the background and the classes of the image; the background starts
    as likely as all classes together, whatever their number. Few steps from weights of 0 keep what images have in
    common, and leave out the faults of single maps. The bias takes up how much of the images is background, and is then
    left out, so that small objects count as large ones do. The head works on the features as they are: their
    standardisation over all cells is part of its weights.

    A classifier can also learn nothing that images have in common: faults of a few pixels do not look alike. So two
    further fits, to one half of the images each, predict the other half. If their mean correlation with the refined
    CAMs is below `config.min_agreement`, the classifier is marked as not useful, and the refiner does not use it.

    Args:
        jobs: the images and their CAMs; images without classes or usable files are left out. The processes of a launch
            share the images.
        network: the network, whose head is fitted in place.
        config: settings; None for the defaults.
        background: as for `cams_to_probs`.
        num_workers: number of workers that read and refine; -1 for one per core.
        device: device of the backbone.
        progress: show a bar on a terminal.

    Returns:
        The number of images, the loss, the agreement, and the images that could not be used.

    Raises:
        PPLValueError: if no image has a class, or a class has no place in the network.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from PIL import Image
        >>> with tempfile.TemporaryDirectory() as name:
        ...     path = Path(name) / "a.png"
        ...     Image.new("RGB", (48, 48)).save(path)
        ...     job = RefineJob("a", path, lambda: (np.eye(6, dtype=np.float32)[None], np.array([1])))
        ...     network = PixelClassifier("test_resnet", num_classes=2)
        ...     summary = fit_pixel_classifier([job], network, PixelConfig(refiners=None), progress=False)
        >>> summary.images
        1
    """
    config = config or PixelConfig()
    share, chosen = current_share(), spread(list(jobs), config.images)
    network.to(device).eval()
    read = partial(
        _read, network=network, config=config, refiners=parse_refiners(config.refiners), background=background
    )
    own, bad = [], []
    jobs_here = share.part(chosen)
    with progress_bar("fit pixels", len(jobs_here), show=progress) as advance:
        for result in parallel_map(partial(guarded, read), jobs_here, num_workers):
            if isinstance(result, BadFile):
                bad.append(result)
            elif result is not None:
                own.append(result)
            advance()
    left_out = gather_bad(bad)
    # Sorted, so that the draws do not depend on the shares of the processes.
    cells = sorted((image for part in share.gather(own) for image in part), key=lambda image: image.image_id)
    if not cells:
        reason = f"; {left_out[0].image_id}: {left_out[0].reason}" if left_out else ": none has a class"
        raise PPLValueError(f"none of the {len(chosen)} images can be learned from{reason}")
    agreement = _agreement(network, cells, config)
    loss = _fit(network, cells, config)
    network.useful = agreement is None or agreement >= config.min_agreement
    return PixelSummary(len(cells), loss, agreement, tuple(left_out))


def _read(
    job: RefineJob,
    *,
    network: PixelClassifier,
    config: PixelConfig,
    refiners: tuple[RefinerSpec, ...],
    background: Background,
) -> _Cells | None:
    image, probs, labels = read_probs(job, background)
    if len(labels) < 2:
        return None
    if labels.max() > network.num_classes:
        raise PPLValueError(f"class {labels.max() - 1} has no place among {network.num_classes} classes")
    with torch.inference_mode():
        features = network.features(network.image_tensor(image))[0]
    refined = torch.from_numpy(np.asarray(apply_refiners(refiners, image, probs, labels), np.float32))
    small = F.interpolate(refined[None], features.shape[1:], mode="area")[0].flatten(1).T
    # A generator of the image's own name, so that the cells do not depend on the order of the workers.
    generator = torch.Generator().manual_seed(config.seed + sum(job.image_id.encode()))
    drawn = torch.randperm(len(small), generator=generator)[: config.cells]
    return _Cells(job.image_id, features.flatten(1).T[drawn].cpu().clone(), small[drawn], torch.from_numpy(labels))


def _agreement(network: PixelClassifier, cells: Sequence[_Cells], config: PixelConfig) -> float | None:
    """Return the mean correlation of images with a fit to the half of the images that they are not part of.

    The halves are drawn by chance. Images with a class that the other half lacks are left out.
    """
    found = []
    order = torch.randperm(len(cells), generator=torch.Generator().manual_seed(config.seed)).tolist()
    halves = sorted(order[::2]), sorted(order[1::2])
    for own, others in (halves, halves[::-1]):
        if not own:
            continue
        _fit(network, [cells[place] for place in own], config)
        known = {label for place in own for label in cells[place].labels.tolist()}
        assert network.head.bias is not None
        weight, bias = network.head.weight.detach()[:, :, 0, 0].cpu(), network.head.bias.detach().cpu()
        for image in (cells[place] for place in others):
            if not known.issuperset(image.labels.tolist()):
                continue
            logits = F.linear(image.features.float(), weight, bias)
            pair = torch.stack([label_probs(logits.T, image.labels)[0], image.probs[:, 0]])
            if (pair.std(dim=1) > 0).all():  # a map of one value has no correlation
                found.append(float(pair.corrcoef()[0, 1]))
    return float(np.mean(found)) if found else None


def _fit(network: PixelClassifier, cells: Sequence[_Cells], config: PixelConfig) -> float:
    """Fit the head, and return the mean loss of the last fifth of the steps."""
    features = torch.cat([image.features for image in cells]).float()
    targets = torch.zeros(len(features), network.num_classes + 1)
    priors = torch.full_like(targets, -1e4)  # rules out the classes that an image does not have
    start = 0
    for image in cells:
        rows = slice(start, start := start + len(image.features))
        targets[rows, image.labels] = image.probs
        priors[rows, image.labels] = 0
        priors[rows, 0] = background_prior(len(image.labels))
    mean, deviation = features.mean(dim=0), features.std(dim=0, correction=0).clamp(min=1e-6)
    features = (features - mean) / deviation
    losses = []
    with seeded(config.seed), torch.enable_grad():
        weight = torch.zeros(network.num_classes + 1, features.shape[1], requires_grad=True)
        bias = torch.zeros(network.num_classes + 1, requires_grad=True)
        optimizer = torch.optim.AdamW([weight, bias], config.lr)
        for _ in range(config.steps):
            batch = torch.randint(len(features), (config.batch_size,))
            logits = F.linear(features[batch], weight, bias) + priors[batch]
            loss = -(targets[batch] * logits.log_softmax(dim=1)).sum(dim=1).mean()
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            losses.append(float(loss.detach()))
    with torch.no_grad():
        scaled = weight / deviation
        network.head.weight.copy_(scaled[:, :, None, None])
        assert network.head.bias is not None
        # The bias, which holds how much of the images is background, is left out: it would hide small objects.
        network.head.bias.copy_(-scaled @ mean)
    return float(np.mean(losses[-max(1, len(losses) // 5) :]))
