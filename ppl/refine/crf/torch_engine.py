"""The PyTorch engine: mean field by gather and index_add, on any device, several images at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ppl.refine.crf.config import per_axis
from ppl.refine.crf.problem import Problem

__all__ = ["mean_field_batch"]


@torch.no_grad()
def mean_field_batch(problems: Sequence[Problem]) -> list[Tensor]:
    """Run mean-field inference of several images together.

    The pixels of all images stand in one long row, and the number of the image is one more coordinate of the lattice,
    so that nothing passes from one image to another.

    Args:
        problems: checked problems with the same settings on the same device; sizes and numbers of labels may differ.

    Returns:
        For each image (L, H, W) probabilities on the device; the last plane belongs to a single copy.
    """
    config, device = problems[0].config, problems[0].device
    most = max(len(problem.unary) for problem in problems)
    energies, counts = [], []
    for problem in problems:
        labels = len(problem.unary)
        rows = problem.unary.reshape(labels, -1).T
        energies.append(torch.nn.functional.pad(rows, (0, most - labels), value=float("inf")))
        weight = torch.ones(most, device=device, dtype=torch.float32)
        weight[labels - 1] = problem.copies
        counts.append(weight.expand(len(rows), most))
    energy, count = torch.cat(energies), torch.cat(counts)

    smoothness, appearance = zip(*(_coordinates(problem) for problem in problems), strict=True)
    terms = [
        (_Lattice(smoothness, config.gaussian_normalization), config.gaussian_compat),
        (_Lattice(appearance, config.bilateral_normalization), config.bilateral_compat),
    ]
    belief = _softmax(-energy, count)
    for _ in range(config.iterations):
        scores = -energy
        for lattice, compat in terms:
            scores += _gain(lattice.filter(belief), compat)
        belief = _softmax(scores, count)

    parts = torch.split(belief, [problem.pixels for problem in problems])
    return [
        rows[:, : len(problem.unary)].T.reshape(problem.unary.shape).contiguous()
        for rows, problem in zip(parts, problems, strict=True)
    ]


def _softmax(scores: Tensor, count: Tensor) -> Tensor:
    """Return the softmax over labels, each of which stands for `count` labels."""
    scores = (scores - scores.amax(dim=1, keepdim=True)).exp()
    return scores / (scores * count).sum(dim=1, keepdim=True)


def _gain(filtered: Tensor, compat: float | tuple[Any, ...]) -> Tensor:
    """Return what labels gain from their filtered probabilities."""
    if isinstance(compat, float):
        return filtered * compat
    penalty = torch.tensor(compat, dtype=torch.float32, device=filtered.device)
    return -filtered * penalty if penalty.ndim == 1 else -filtered @ penalty


def _coordinates(problem: Problem) -> tuple[Tensor, Tensor]:
    """Return the (N, d) coordinates of all pixels for the smoothness and for the appearance kernel."""
    config, device = problem.config, problem.device
    guide = problem.image if problem.features is None else problem.features
    height, width, channels = guide.shape
    y = torch.arange(height, device=device, dtype=torch.float32).repeat_interleave(width)
    x = torch.arange(width, device=device, dtype=torch.float32).repeat(height)

    def divided(columns: list[Tensor], deviations: tuple[float, ...]) -> Tensor:
        pairs = zip(columns, deviations, strict=True)
        return torch.stack([column / np.float32(value).item() for column, value in pairs], dim=1)

    smoothness = divided([x, y], per_axis("gaussian_sxy", config.gaussian_sxy, 2))
    sx, sy = per_axis("bilateral_sxy", config.bilateral_sxy, 2)
    colours = list(guide.reshape(-1, channels).float().unbind(dim=1))
    srgb = per_axis("bilateral_srgb", config.bilateral_srgb, channels)
    # The lattice depends on the order of the axes: these are the orders of pydensecrf.
    if problem.features is None:
        return smoothness, divided([x, y, *colours], (sx, sy, *srgb))
    return smoothness, divided([y, x, *colours], (sy, sx, *srgb))


class _Lattice:
    """One kernel over the pixels of a batch: `ppl.refine.crf.native.general` explains the terms.

    Args:
        coordinates: (N, d) of each image.
        normalization: as in `CrfConfig`.
    """

    def __init__(self, coordinates: Sequence[Tensor], normalization: str) -> None:
        points, owner, padded = _padded(coordinates)
        self.dimensions = points.shape[1]
        cell, rank, weights = _embed(points)
        codes, moves = _encode(cell, rank, owner)
        every, touched = torch.unique(codes, return_inverse=True)
        self.vertices, self.weights = touched[padded:], weights[padded:]
        self.neighbours = [_neighbours(every, move) for move in moves]
        self.count = len(every)
        mass = self._apply(torch.ones(len(self.weights), 1, device=points.device, dtype=torch.float32)) + 1e-20
        one = torch.ones_like(mass)
        self.before, self.after = {
            "symmetric": (mass.rsqrt(), mass.rsqrt()),
            "before": (1 / mass, one),
            "after": (one, 1 / mass),
            "none": (one, one),
        }[normalization]

    def filter(self, rows: Tensor) -> Tensor:
        """Return the filtered (N, L) rows."""
        return self._apply(rows * self.before) * self.after

    def _apply(self, rows: Tensor) -> Tensor:
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


def _padded(coordinates: Sequence[Tensor]) -> tuple[Tensor, Tensor, int]:
    """Return (N, d) points, (N,) image numbers and the number of origins, which come first.

    pydensecrf works on four pixels at a time and pads the last four of an image with points at the origin.
    """
    origins = [number for number, points in enumerate(coordinates) if len(points) % 4]
    device = coordinates[0].device
    owners = [torch.full((len(points),), number, device=device) for number, points in enumerate(coordinates)]
    first = coordinates[0].new_zeros(len(origins), coordinates[0].shape[1])
    owner = torch.cat([torch.tensor(origins, dtype=torch.long, device=device), *owners])
    return torch.cat([first, *coordinates]), owner, len(origins)


def _embed(features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return cells and ranks (N, d+1) as integers and barycentric weights (N, d+1), rounded as pydensecrf rounds."""
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


def _encode(cell: Tensor, rank: Tensor, owner: Tensor) -> tuple[Tensor, list[int]]:
    """Return a code for each of the vertices (N, d+1), and how far neighbours along each axis lie.

    The code is a product of the vertex's coordinates and the image's number with random numbers, modulo 2^64: two of a
    million vertices have the same code with probability 3e-8.
    """
    d = cell.shape[1] - 1
    numbers = (np.random.default_rng(0).integers(-(2**62), 2**62, d + 1) * 2 + 1).tolist()
    multipliers = torch.tensor(numbers, device=cell.device)
    codes = []
    for k in range(d + 1):
        coordinates = cell * (d + 1) + torch.where(rank <= d - k, k, k - (d + 1))
        codes.append((coordinates[:, :d] * multipliers[:d]).sum(dim=1) + owner * multipliers[d])
    every = sum(numbers[:d])
    return torch.stack(codes, dim=1), [_wrapped(every - (d + 1) * number) for number in (*numbers[:d], 0)]


def _wrapped(number: int) -> int:
    """Return a number modulo 2^64, as a signed 64-bit number."""
    return (number + 2**63) % 2**64 - 2**63


def _neighbours(codes: Tensor, move: int) -> tuple[Tensor, Tensor]:
    """Return the vertices before and after each vertex along an axis; the number of vertices stands for none."""
    missing = len(codes)
    wanted = codes + move
    found = torch.searchsorted(codes, wanted).clamp_(max=missing - 1)
    after = torch.where(codes[found] == wanted, found, missing)
    before = torch.full((missing + 1,), missing, device=codes.device)
    before[after] = torch.arange(missing, device=codes.device)
    return before[:missing], after
