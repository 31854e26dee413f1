"""Training of an affinity network's head: a plain loop that resumes where it was stopped."""

from __future__ import annotations

import hashlib
import json
import math
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field, field_validator
from torch import nn
from torch.utils.data import DataLoader, Subset

from ppl.errors import PPLError, PPLValueError
from ppl.io import atomic_write
from ppl.parallel import BadFile, progress_bar
from ppl.refine.affinity.losses import affinity_loss
from ppl.refine.affinity.views import LabelledImages, RandomViews
from ppl.refine.affinity_maps import save_affinity
from ppl.refine.affinity_network import AffinityNetwork
from ppl.refine.stencil import edge_affinity, feature_affinity

__all__ = ["AffinityConfig", "AffinitySummary", "fit_affinity"]

_STATE, _RESULT = "affinity_state.safetensors", "affinity.safetensors"


class AffinityConfig(BaseModel):
    """How an affinity network is trained. The defaults are IRN's where it states them.

    Example:
        >>> AffinityConfig(epochs=1).lr
        0.1
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    epochs: int = Field(3, ge=1, description="passes over the training images")
    batch_size: int = Field(16, ge=1, description="views per step (IRN: 32)")
    lr: float = Field(0.1, gt=0, description="learning rate at the start; it falls as (1 - step/steps)^0.9")
    momentum: float = Field(0.0, ge=0, lt=1, description="of SGD; IRN's released code has effectively none")
    weight_decay: float = Field(1e-4, ge=0, description="of SGD")
    crop: int | None = Field(
        None,
        ge=32,
        description="side of the square views in pixels; by default the longer side of a usual training image, rounded"
        " up to a multiple of 32 and at most 512, which is IRN's",
    )
    scale: tuple[float, float] = Field((0.5, 1.5), description="range of the random resizing")
    radius: int = Field(
        10, ge=2, description="pairs nearer than this are learned from, in cells; the walk itself looks at radius 5"
    )
    num_workers: int = Field(0, ge=0, description="processes that read images; 0 reads in this one")
    seed: int = Field(0, ge=0, description="of the head's weights, the order and the views")

    @field_validator("scale")
    @classmethod
    def _rising(cls, value: tuple[float, float]) -> tuple[float, float]:
        if not 0 < value[0] <= value[1] < math.inf:
            raise ValueError(f"scale must be a range (least, most) of factors above 0, got {value}")
        return value


@dataclass(frozen=True)
class AffinitySummary:
    """What a training run did.

    Args:
        losses: mean loss of every epoch.
        path: the finished network, for `load_affinity` and the step `random_walk`.
        seconds: wall time of this call.
        bad: images that could not be labelled, where `learn_affinity` made the labels.
    """

    losses: tuple[float, ...]
    path: Path
    seconds: float
    bad: tuple[BadFile, ...] = ()


def fit_affinity(
    network: AffinityNetwork,
    pairs: Any,
    config: AffinityConfig | None = None,
    *,
    out: str | os.PathLike[str],
    device: str | torch.device | None = None,
    progress: bool = True,
) -> AffinitySummary:
    """Train the head of an affinity network on confident labels.

    After every epoch the head is kept in `out`; the same call goes on from there, and ends with the same weights as a
    run that was never stopped.

    Args:
        network: its head is initialised again, from the seed.
        pairs: map-style dataset of `(image, labels)`: `(H, W, 3)` uint8 and `(H, W)` integers with 0 background and
            255 unsure; `LabelledImages` reads them from files.
        config: see there.
        out: folder of the state and of the result, `affinity.safetensors`.
        device: where to train; by default a GPU if there is one.
        progress: a bar on a terminal.

    Returns:
        The losses and the path of the result. `network` holds the trained head.

    Raises:
        PPLValueError: if there are no pairs, none of them has two confident cells near each other, or `out` holds the
            state of another configuration, of other backbone weights or of other labels.
        PPLError: if the loss is no number any more.

    Example:
        >>> import tempfile
        >>> import numpy as np
        >>> labels = np.repeat(np.array([[0, 1]], np.uint8), 24, axis=1).repeat(48, axis=0)
        >>> pairs = [(labels[..., None].repeat(3, axis=2) * 200, labels)] * 2
        >>> config = AffinityConfig(epochs=1, batch_size=2, crop=48, radius=3)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     summary = fit_affinity(AffinityNetwork("test_resnet"), pairs, config, out=folder)
        >>> len(summary.losses)
        1
    """
    config = config or AffinityConfig()
    if not len(pairs):
        raise PPLValueError("there are no images with confident labels to learn from: check the labels' folder")
    crop = config.crop or _usual_side(pairs)
    start = time.perf_counter()
    out = Path(out)
    place = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    _initialise(network, config.seed)
    network.to(place).train()
    optimiser = torch.optim.SGD(
        network.head.parameters(), lr=config.lr, momentum=config.momentum, weight_decay=config.weight_decay
    )
    training = config.model_dump(mode="json", exclude={"num_workers"}) | {"crop": crop}
    identity = {
        "training": training,
        "network": network.config,
        "backbone": _digest(network.backbone.state_dict()),
        "pairs": pairs.fingerprint() if isinstance(pairs, LabelledImages) else len(pairs),
    }
    losses = _load_state(out / _STATE, network, optimiser, identity)
    views = RandomViews(pairs, crop=crop, scale=config.scale, fill=network.mean[0].cpu(), seed=config.seed)
    batches = math.ceil(len(pairs) / config.batch_size)
    total_batches = config.epochs * batches
    done = len(losses) * batches
    with progress_bar("affinities", total_batches, completed=done, unit="batches", show=progress) as advance:
        for epoch in range(len(losses), config.epochs):
            views.epoch = epoch
            total = 0.0
            for step, (images, labels) in enumerate(_batches(views, config, epoch), start=epoch * batches):
                rate = config.lr * (1.0 - step / (config.epochs * batches)) ** 0.9
                loss = _train_step(network, optimiser, rate, images.to(place), labels.to(place), config.radius)
                total += loss * len(images)
                advance()
            if not total:
                raise PPLValueError(
                    "the labels hold no two confident cells near each other, so there is nothing to learn affinities "
                    "from: lower the foreground score, raise the background score, or make better CAMs"
                )
            losses.append(total / len(pairs))
            _save_state(out / _STATE, network, optimiser, identity, losses)
    network.eval()
    save_affinity(network, out / _RESULT)
    return AffinitySummary(tuple(losses), out / _RESULT, time.perf_counter() - start)


def _digest(state: dict[str, torch.Tensor]) -> str:
    digest = hashlib.sha256()
    for name, value in state.items():
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _usual_side(pairs: Any) -> int:
    """The median of the longer sides of some images, as a multiple of 32; padding would only cost time."""
    some = np.unique(np.linspace(0, len(pairs) - 1, 25).astype(int))
    usual = float(np.median([max(pairs[int(index)][1].shape) for index in some]))
    return min(32 * math.ceil(usual / 32), 512)


def _initialise(network: AffinityNetwork, seed: int) -> None:
    """Fresh weights for the head, without disturbing the caller's random numbers."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for module in network.head.modules():
            if isinstance(module, (nn.Conv2d, nn.GroupNorm)):
                module.reset_parameters()


def _batches(views: RandomViews, config: AffinityConfig, epoch: int) -> DataLoader[Any]:
    chance = torch.Generator().manual_seed(config.seed * 100_003 + epoch)
    shuffled = Subset(views, torch.randperm(len(views), generator=chance).tolist())
    # The loader draws a seed for its workers: not from the caller's random numbers.
    return DataLoader(shuffled, batch_size=config.batch_size, num_workers=config.num_workers, generator=chance)


def _train_step(
    network: AffinityNetwork,
    optimiser: torch.optim.Optimizer,
    rate: float,
    images: torch.Tensor,
    labels: torch.Tensor,
    radius: int,
) -> float:
    for group in optimiser.param_groups:
        group["lr"] = rate
    output = network(images)
    cells = F.interpolate(labels[:, None].float(), output.shape[-2:], mode="nearest-exact")[:, 0].long()
    if network.kind == "edges":
        affinity = edge_affinity(output[:, 0].sigmoid(), radius)
    else:
        affinity = feature_affinity(output, radius)
    loss = affinity_loss(affinity, cells, radius)
    value = float(loss.detach())
    if not math.isfinite(value):
        raise PPLError(f"the affinity loss became {value}: lower lr={rate:.3g}")
    optimiser.zero_grad(set_to_none=True)
    torch.autograd.backward(loss)
    optimiser.step()
    return value


def _save_state(
    path: Path,
    network: AffinityNetwork,
    optimiser: torch.optim.Optimizer,
    identity: dict[str, Any],
    losses: list[float],
) -> None:
    from safetensors.torch import save

    tensors = {f"head.{name}": value.detach().cpu().contiguous() for name, value in network.head.state_dict().items()}
    for index, parameter in enumerate(network.head.parameters()):
        momentum = optimiser.state[parameter].get("momentum_buffer")
        if momentum is not None:
            tensors[f"momentum.{index}"] = momentum.detach().cpu().contiguous()
    with atomic_write(path) as handle:
        handle.write(save(tensors, metadata={"identity": json.dumps(identity), "losses": json.dumps(losses)}))


def _load_state(
    path: Path, network: AffinityNetwork, optimiser: torch.optim.Optimizer, identity: dict[str, Any]
) -> list[float]:
    """Put the head and the momentum back as they were; the losses of the epochs that are done."""
    from safetensors import safe_open

    if not path.is_file():
        return []
    with safe_open(str(path), framework="pt") as file:
        metadata = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
    if json.loads(metadata["identity"]) != json.loads(json.dumps(identity)):
        raise PPLValueError(f"{path} is the state of another configuration: choose another folder or remove it")
    network.head.load_state_dict({n.removeprefix("head."): t for n, t in tensors.items() if n.startswith("head.")})
    for index, parameter in enumerate(network.head.parameters()):
        if f"momentum.{index}" in tensors:
            optimiser.state[parameter]["momentum_buffer"] = tensors[f"momentum.{index}"].to(parameter)
    losses: list[float] = json.loads(metadata["losses"])
    return losses
