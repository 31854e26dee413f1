"""The PyTorch engine: the same mean field by gather and index_add, on any device, several images at once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ppl.errors import PPLValueError
from ppl.refine.crf.validation import CRFSettings

__all__ = ["mean_field_batch"]

_NEVER = 1e4  # the energy of a label that an image of the batch does not have


@torch.no_grad()
def mean_field_batch(
    images: Sequence[NDArray[np.uint8] | Tensor],
    unaries: Sequence[NDArray[np.float32] | Tensor],
    settings: CRFSettings,
    copies: Sequence[int],
    device: str = "cpu",
) -> list[Tensor]:
    """Mean-field inference by PyTorch, of several images in one go. The arguments have been checked.

    The pixels of all images stand in one long row, and the number of the image is one more coordinate of the lattice,
    so that nothing passes from one to another.

    Args:
        images: (H, W, 3) each; sizes may differ.
        unaries: (L, H, W) energies each; numbers of labels may differ.
        settings: checked numbers.
        copies: for each image, how many labels the last energy stands for.
        device: where to compute.

    Returns:
        (L, H, W) probabilities for each image, on the device; the last is that of a single copy.
    """
    most = max(len(unary) for unary in unaries)
    energies, counts = [], []
    for unary, number in zip(unaries, copies, strict=True):
        rows = torch.as_tensor(unary).to(device).reshape(len(unary), -1).T
        energies.append(torch.nn.functional.pad(rows, (0, most - len(unary)), value=_NEVER))
        weight = torch.ones(most, device=device)
        weight[len(unary) - 1] = number
        counts.append(weight.expand(len(rows), most))
    energy, count = torch.cat(energies), torch.cat(counts)

    filters = [
        _Lattice(images, [settings.gaussian_sxy], settings.gaussian_compat, device),
        _Lattice(images, [settings.bilateral_sxy, settings.bilateral_srgb], settings.bilateral_compat, device),
    ]
    belief = _softmax(-energy, count)
    for _ in range(settings.iterations):
        logits = -energy
        for lattice in filters:
            logits += lattice.messages(belief)
        belief = _softmax(logits, count)

    sizes = [image.shape[0] * image.shape[1] for image in images]
    return [
        rows[:, : len(unary)].T.reshape(unary.shape).contiguous()
        for rows, unary in zip(torch.split(belief, sizes), unaries, strict=True)
    ]


def _softmax(logits: Tensor, count: Tensor) -> Tensor:
    """Softmax over labels of which some stand for several."""
    scores = (logits - logits.amax(dim=1, keepdim=True)).exp()
    return scores / (scores * count).sum(dim=1, keepdim=True)


class _Lattice:
    """The permutohedral lattice over the pixels of a batch: `ppl.refine.crf.native.lattice` explains the terms."""

    def __init__(
        self, images: Sequence[NDArray[np.uint8] | Tensor], deviations: Sequence[float], compat: float, device: str
    ) -> None:
        features, owner, padded = _features(images, deviations, device)
        self.dimensions = features.shape[1]
        cell, rank, self.weights = _embed(features)
        steps = torch.arange(self.dimensions + 1, device=device)
        # Vertex k of a pixel: its cell, less one in each of the k coordinates of the highest ranks.
        members = rank[:, None, :] > (self.dimensions - steps)[None, :, None]
        vertices = cell[:, None, :] - members.long()
        codes, moves = _encode(vertices, owner)
        every, touched = torch.unique(codes, return_inverse=True)
        self.vertices = touched[padded:]
        self.weights = self.weights[padded:]
        self.neighbours = [_neighbours(every, move, self.dimensions) for move in moves]
        self.count = len(every)
        mass = self._filter(torch.ones(len(self.weights), 1, device=device))
        self.norm = (mass + 1e-20).rsqrt()
        self.compat = compat

    def messages(self, belief: Tensor) -> Tensor:
        """(N, L) -> (N, L): what every label gains from the pixels around."""
        return self._filter(belief * self.norm) * (self.norm * self.compat)

    def _filter(self, rows: Tensor) -> Tensor:
        # The last row stands for every missing neighbour and stays zero.
        values = rows.new_zeros(self.count + 1, rows.shape[1])
        for k in range(self.dimensions + 1):
            values.index_add_(0, self.vertices[:, k], rows * self.weights[:, k, None])
        for before, after in self.neighbours:
            values[:-1] += 0.5 * (values[before] + values[after])
        result = torch.zeros_like(rows)
        for k in range(self.dimensions + 1):
            result += values[self.vertices[:, k]] * self.weights[:, k, None]
        return result / (1 + 2.0**-self.dimensions)


def _features(
    images: Sequence[NDArray[np.uint8] | Tensor], deviations: Sequence[float], device: str
) -> tuple[Tensor, Tensor, int]:
    """(N, d) float32 features and (N,) image numbers; first come origins for images that pydensecrf would pad."""
    rows, owners, origins = [], [], []
    for number, image in enumerate(images):
        height, width = image.shape[:2]
        y = torch.arange(height, device=device, dtype=torch.float32).repeat_interleave(width)
        x = torch.arange(width, device=device, dtype=torch.float32).repeat(height)
        parts = [(torch.stack([x, y], dim=1)) / np.float32(deviations[0]).item()]
        if len(deviations) > 1:
            pixels = torch.as_tensor(image).to(device).reshape(-1, 3)
            parts.append(pixels.float() / np.float32(deviations[1]).item())
        rows.append(torch.cat(parts, dim=1))
        owners.append(torch.full((height * width,), number, device=device))
        if height * width % 4:
            origins.append(number)
    origin = torch.zeros(len(origins), rows[0].shape[1], device=device)
    owner = torch.cat([torch.tensor(origins, dtype=torch.long, device=device), *owners])
    return torch.cat([origin, *rows]), owner, len(origins)


def _embed(features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Cell (N, d+1) and ranks (N, d+1) as integers, barycentric weights (N, d+1), rounded as pydensecrf rounds."""
    n, d = features.shape
    spread = np.float32(np.sqrt(2.0 / 3.0) * (d + 1))
    scales = [float(np.float32(1.0 / np.sqrt((i + 2) * (i + 1)) * float(spread))) for i in range(d)]
    elevated = features.new_empty(n, d + 1)
    running = features.new_zeros(n)
    for j in range(d, 0, -1):
        term = features[:, j - 1] * scales[j - 1]
        elevated[:, j] = running - j * term
        running = running + term
    elevated[:, 0] = running
    inverse = float(np.float32(1) / np.float32(d + 1))
    cell = (elevated * inverse).round()
    excess = cell.sum(dim=1, keepdim=True).long()
    residual = elevated - cell * (d + 1)
    behind = residual[:, :, None] < residual[:, None, :]
    earlier = torch.ones(d + 1, d + 1, dtype=torch.bool, device=features.device).tril(-1)
    # A tie counts against the later coordinate.
    ahead = behind | (earlier & (residual[:, :, None] == residual[:, None, :]))
    rank = ahead.sum(dim=2) + excess
    step = (rank < 0).long() - (rank > d).long()
    rank = rank + step * (d + 1)
    cell = cell + step
    residual = (elevated - cell * (d + 1)) * inverse
    by_rank = torch.empty_like(residual).scatter_(1, rank, residual).flip(1)
    weights = by_rank.clone()
    weights[:, 1:] -= by_rank[:, :-1]
    weights[:, 0] += 1 - by_rank[:, -1]
    return cell.long(), rank, weights


def _encode(vertices: Tensor, owner: Tensor) -> tuple[Tensor, list[tuple[int, int]]]:
    """One number for each vertex (N, d+1, d+1) of each image, and how far its neighbours along each axis lie.

    The lowest three bits hold k, which is minus the sum of the coordinates; a step beyond k = d wraps around.
    """
    d = vertices.shape[2] - 1
    lows = vertices.amin(dim=(0, 1)) - 2
    extents = (vertices.amax(dim=(0, 1)) + 2 - lows + 1).tolist()
    codes = -vertices.sum(dim=2)
    strides, stride = [0], 8
    for i in range(1, d + 1):
        codes = codes + (vertices[:, :, i] - lows[i]) * stride
        strides.append(stride)
        stride *= extents[i]
    if stride * (int(owner.max()) + 1) >= 2**62:
        raise PPLValueError("the lattice coordinates of this batch do not fit into 63 bits; enlarge the deviations")
    codes = codes + owner[:, None] * stride
    return codes, [(1 - stride_i, sum(strides) - stride_i - d) for stride_i in strides]


def _neighbours(codes: Tensor, move: tuple[int, int], d: int) -> tuple[Tensor, Tensor]:
    """The vertices before and after each one along an axis; where there is none, the number of vertices."""
    missing = len(codes)
    wanted = codes + torch.where((codes & 7) < d, move[0], move[1])
    found = torch.searchsorted(codes, wanted).clamp_(max=missing - 1)
    after = torch.where(codes[found] == wanted, found, missing)
    before = torch.full((missing + 1,), missing, device=codes.device)
    before[after] = torch.arange(missing, device=codes.device)
    return before[:missing], after
