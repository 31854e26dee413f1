"""The affinity network as a task of the training loop."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader

from ppl.data.loader import EpochSampler, TrainLoader
from ppl.data.views import RandomViews
from ppl.engine import EpochBatches, Task
from ppl.engine.batches import loader_workers
from ppl.engine.random_state import seeded
from ppl.errors import PPLValueError
from ppl.io import fingerprint_weights
from ppl.refine.affinity.config import AffinityConfig
from ppl.refine.affinity.labelled_images import LabelledImages, usual_side
from ppl.refine.affinity.losses import affinity_loss
from ppl.refine.affinity_maps import save_affinity
from ppl.refine.affinity_network import AffinityNetwork
from ppl.refine.stencil import edge_affinity, feature_affinity

__all__ = ["AffinityObjective", "AffinityTask"]


class AffinityObjective(nn.Module):
    """From images and labels to the affinity loss."""

    def __init__(self, network: AffinityNetwork, radius: int) -> None:
        super().__init__()
        self.network, self.radius = network, radius

    def forward(self, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Compute the loss of a batch.

        Args:
            images: (B, 3, H, W) in [0, 1].
            labels: (B, H, W) integers, 0 background, 255 unsure.

        Returns:
            The scalar `loss`.
        """
        output = self.network(images).float()  # half precision is too coarse for logarithms
        cells = F.interpolate(labels[:, None].float(), output.shape[-2:], mode="nearest-exact")[:, 0].long()
        if self.network.kind == "edges":
            affinity = edge_affinity(output[:, 0].sigmoid(), self.radius)
        else:
            affinity = feature_affinity(output, self.radius)
        return {"loss": affinity_loss(affinity, cells, self.radius)}


class AffinityTask(Task):
    """Training of the head of an affinity network on confident labels.

    Args:
        network: the network; the weights of its head are drawn anew from the seed.
        pairs: map-style dataset of images and labels; see `fit_affinity`.
        val: held-out pairs, or None.
        config: the settings.
        accelerator: from `open_accelerator`.

    Raises:
        PPLValueError: if there are no pairs.
    """

    config: AffinityConfig
    model: AffinityNetwork

    def __init__(
        self, network: AffinityNetwork, pairs: Any, val: Any, config: AffinityConfig, accelerator: Any
    ) -> None:
        if not len(pairs):
            raise PPLValueError("there are no images with confident labels to learn from: check the labels' folder")
        self.config, self.model = config, network
        crop = config.crop or usual_side(pairs)
        with seeded(config.seed, accelerator.device):  # the same weights in all processes
            for module in network.head.modules():
                if isinstance(module, (nn.Conv2d, nn.GroupNorm)):
                    module.reset_parameters()
        self.objective = AffinityObjective(network, config.radius)
        fill = network.mean[0].cpu()
        views = partial(RandomViews, crop=crop, scale=config.scale, fill=fill, seed=config.seed)
        workers = loader_workers(config.num_workers, accelerator.num_processes)
        loader = TrainLoader(
            views(pairs),
            batch_sampler=EpochSampler(len(pairs), config.batch_size, seed=config.seed, drop_last=False),
            num_workers=workers,
            persistent_workers=workers > 0,
        )
        self.batches = EpochBatches(loader, accelerator.num_processes, accelerator.process_index)
        if val is not None:
            self.val = DataLoader(views(val), batch_size=config.batch_size, num_workers=workers)
        self.identity = {
            **config.identity(),
            "crop": crop,
            **{f"network.{key}": value for key, value in network.config.items()},
            "weights of the backbone": fingerprint_weights(network.backbone.state_dict()),
            "training images": _fingerprint(pairs),
            "validation images": None if val is None else _fingerprint(val),
            "processes": accelerator.num_processes,
        }

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Return the parameters of the head."""
        head = list(self.model.head.parameters())
        return [{"params": head, "lr": self.config.lr, "weight_decay": self.config.weight_decay}]

    def losses(self, objective: nn.Module, batch: Any) -> Mapping[str, Tensor]:
        """Return the loss of a batch."""
        losses: Mapping[str, Tensor] = objective(*batch)
        return losses

    def check_epoch(self, losses: Mapping[str, float]) -> None:
        """Refuse labels without a single pair of cells, whose loss is 0."""
        if not losses["loss"]:
            raise PPLValueError(
                "the labels hold no two confident cells near each other, so there is nothing to learn affinities "
                "from: lower the foreground score, raise the background score, or make better CAMs"
            )

    @torch.no_grad()
    def validate(self, model: nn.Module, accelerator: Any) -> dict[str, float]:
        """Return the mean loss on the same views of the held-out pairs in every epoch; each process scores all."""
        assert isinstance(model, AffinityNetwork) and self.val is not None
        objective = AffinityObjective(model, self.config.radius).eval()
        total, count = torch.zeros((), device=accelerator.device), 0
        for images, labels in self.val:
            with accelerator.autocast():
                losses = objective(images.to(accelerator.device), labels.to(accelerator.device))
            total += losses["loss"] * len(images)
            count += len(images)
        return {self.score: float(total) / count}

    def save(self, model: nn.Module, path: Path) -> None:
        """Write the network, for `load_affinity`."""
        assert isinstance(model, AffinityNetwork)
        save_affinity(model, path)


def _fingerprint(pairs: Any) -> str:
    """Hash the label maps of files; for other datasets return the number of pairs."""
    return f"{len(pairs)} images" + (f", {pairs.fingerprint()}" if isinstance(pairs, LabelledImages) else "")
