"""What the frozen front of the network makes of every picture, computed once for all cells of the study.

All arms share a front that does not learn (stem and first stages, as IRN and its successors train), so its maps of a
fixed pool of augmented views and of the scored pictures can be kept on disk, and a cell only trains what comes behind.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ppl.backbones.half import half_precision
from ppl.data import TaggedImages, train_loader, train_transform
from ppl.io import atomic_write, read_image

FRONT = 3
"""The stem and so many of MobileNetV2's seven groups of blocks do not learn; their map has stride 8."""
STRIDE = 8
AT_ONCE = {"cpu": 4, "cuda": 16}
"""Pictures in a group; each backward pass of LayerCAM serves one class of all of them."""


class Tail(nn.Module):
    """The learning part of MobileNetV2 as a backbone of its own, its stages named `front`, `group3`, ..., `group6`."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.front = nn.Identity()
        self.names = ["front"]
        for number, group in list(enumerate(network.blocks))[FRONT:]:
            self.names.append(f"group{number}")
            self.add_module(self.names[-1], group)
        self.head = nn.Sequential(network.conv_head, network.bn2)
        self.in_chans = network.blocks[FRONT][0].conv_pw.in_channels

    @property
    def stages(self) -> list[str]:
        return [*self.names, "head"]

    def forward(self, x: Tensor) -> Tensor:
        for name in self.names:
            x = getattr(self, name)(x)
        return self.head(x)


def load_network(weights: Path, output_stride: int) -> nn.Module:
    name = weights.stem.removesuffix("_imagenet")
    network = timm.create_model(name, checkpoint_path=str(weights), output_stride=output_stride)
    network.reset_classifier(0)
    return network.eval()


@dataclass
class Pool:
    """(V, N, C, h, w) bfloat16 maps of V augmented views of N training pictures, and their tags (N, K)."""

    views: Tensor
    targets: Tensor


def training_pool(
    images: TaggedImages,
    network: nn.Module,
    data_config: dict[str, object],
    size: tuple[int, int],
    views: int,
    out: Path,
    seed: int = 0,
    only: Sequence[int] | None = None,
) -> Pool:
    """Load the pool of views, or compute it (`out` is a folder; it is complete once `pool.json` is there).

    View number n is what `ppl.train.fit` with that seed shows in epoch n. Processes that share the work each compute
    `only` some views; `seal` the folder when all are there.
    """
    shape = (views, len(images), network.blocks[FRONT][0].conv_pw.in_channels, size[0] // STRIDE, size[1] // STRIDE)
    out.mkdir(parents=True, exist_ok=True)
    data = torch.from_file(str(out / "pool.bin"), shared=True, size=math.prod(shape), dtype=torch.bfloat16).view(shape)
    if not (out / "pool.json").exists():
        for view in range(views) if only is None else only:
            fill(data[view], view, images, network, data_config, size, seed)
        if only is None:
            seal(out)
    return Pool(data, images.targets())


def fill(
    data: Tensor,
    view: int,
    images: TaggedImages,
    network: nn.Module,
    data_config: dict[str, object],
    size: tuple[int, int],
    seed: int,
) -> None:
    transform = train_transform(size, data_config["mean"], data_config["std"])
    loader = train_loader(images, transform, batch_size=16, seed=seed, drop_last=False)
    loader.set_epoch(view)
    for batch in loader:
        data[batch.indices] = front(network, batch.images).cpu()


def seal(out: Path) -> None:
    """Say that a pool is complete."""
    with atomic_write(out / "pool.json", "w") as file:
        json.dump({"complete": True}, file)


def autocast(device: torch.device) -> torch.autocast:
    """Mixed precision where the device has it."""
    half = half_precision(device)
    return torch.autocast(device.type, half or torch.bfloat16, enabled=half is not None)


@torch.inference_mode()
def front(network: nn.Module, images: Tensor) -> Tensor:
    """Maps (B,C,h,w) bfloat16 behind the frozen part, on the network's device."""
    x = images.to(network.conv_stem.weight.device).contiguous(memory_format=torch.channels_last)
    with autocast(x.device):
        return network.blocks[:FRONT](network.bn1(network.conv_stem(x))).bfloat16()


@dataclass
class Group:
    """Pictures of one size: their positions in the split, and per scale the maps (n, 2, C, h, w), mirrored second."""

    size: tuple[int, int]
    members: list[int]
    maps: list[Tensor]


def scored_groups(
    images: TaggedImages,
    network: nn.Module,
    data_config: dict[str, object],
    scales: Sequence[float],
    out: Path,
) -> Iterator[Group]:
    """Front maps of a split at every scale and mirrored, from `out` (made if missing), grouped by size of picture."""
    if not out.exists():
        mean, std = (torch.tensor(data_config[key])[:, None, None] for key in ("mean", "std"))
        groups: dict[tuple[int, int], list[tuple[int, list[Tensor]]]] = defaultdict(list)
        for number, sample in enumerate(images):
            pixels = torch.from_numpy(np.array(read_image(sample.image))).permute(2, 0, 1) / 255
            x = ((pixels - mean) / std)[None]
            height, width = x.shape[-2:]
            maps = []
            for scale in scales:
                size = (round(height * scale), round(width * scale))
                view = x if scale == 1 else F.interpolate(x, size, mode="bilinear", align_corners=False)
                maps.append(front(network, torch.cat([view, view.flip(-1)])).cpu())
            groups[height, width].append((number, maps))
        packed = []
        for size, rows in groups.items():
            by_scale = zip(*(maps for _, maps in rows), strict=True)
            packed.append((size, [number for number, _ in rows], [torch.stack(maps) for maps in by_scale]))
        out.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(out, "wb") as file:
            torch.save(packed, file)
    at_once = AT_ONCE[network.conv_stem.weight.device.type]
    for size, members, maps in torch.load(out, weights_only=True, mmap=True):
        for start in range(0, len(members), at_once):
            part = slice(start, start + at_once)
            yield Group(size, members[part], [scale[part] for scale in maps])
