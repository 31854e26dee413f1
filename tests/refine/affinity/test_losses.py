"""The affinity loss, compared with loops over pairs; gradients along paths."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ppl.errors import PPLValueError
from ppl.refine.affinity import affinity_loss
from ppl.refine.affinity.losses import pair_masks
from ppl.refine.stencil import edge_affinity, feature_affinity, half_plane_offsets, paths


@pytest.fixture
def labels():
    return torch.from_numpy(np.random.default_rng(0).choice([0, 1, 2, 255], size=(2, 6, 7)))


def test_loss_equals_the_loop_over_pairs(labels):
    edges = torch.rand(2, 6, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    sums = {"background": [], "same": [], "different": []}
    for b in range(2):
        for y in range(6):
            for x in range(7):
                for (dy, dx), path in zip(half_plane_offsets(3), paths(3), strict=True):
                    v, u = y + dy, x + dx
                    if not (0 <= v < 6 and 0 <= u < 7):
                        continue
                    first, second = int(labels[b, y, x]), int(labels[b, v, u])
                    if 255 in (first, second):
                        continue
                    affinity = 1 - max(float(edges[b, y + p, x + q]) for p, q in path)
                    if first != second:
                        sums["different"].append(-np.log(1 + 1e-5 - affinity))
                    else:
                        sums["same" if first else "background"].append(-np.log(affinity + 1e-5))
    expected = np.mean(sums["background"]) / 4 + np.mean(sums["same"]) / 4 + np.mean(sums["different"]) / 2
    assert float(affinity_loss(edge_affinity(edges, 3), labels, 3)) == pytest.approx(expected, rel=1e-6)


def test_gradients_are_those_of_finite_differences(labels):
    chance = torch.Generator().manual_seed(0)
    edges = torch.rand(2, 6, 7, generator=chance, dtype=torch.float64).requires_grad_()
    features = torch.rand(2, 3, 6, 7, generator=chance, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda e: affinity_loss(edge_affinity(e, 3), labels, 3), (edges,))
    assert torch.autograd.gradcheck(lambda f: affinity_loss(feature_affinity(f, 3), labels, 3), (features,))


def test_affinities_are_the_same_with_and_without_autograd():
    edges = torch.rand(2, 9, 8, generator=torch.Generator().manual_seed(0))
    plain = edge_affinity(edges, 5)
    torch.testing.assert_close(edge_affinity(edges.clone().requires_grad_(), 5), plain)


def test_unsure_cells_are_in_no_pair():
    masks = pair_masks(torch.full((1, 4, 4), 255), 3)
    assert not any(mask.any() for mask in masks)
    assert float(affinity_loss(torch.rand(1, len(half_plane_offsets(3)), 4, 4), torch.full((1, 4, 4), 255), 3)) == 0


def test_shapes_that_do_not_fit_are_named(labels):
    with pytest.raises(PPLValueError, match=r"\(2, 12, 6, 7\)"):
        affinity_loss(torch.zeros(2, 34, 6, 7), labels, 3)


@pytest.mark.parametrize("radius", [2, 5, 10])
def test_offsets_are_every_pair_once(radius):
    disc = {(y, x) for y in range(-radius, radius + 1) for x in range(-radius, radius + 1) if y * y + x * x < radius**2}
    offsets = set(half_plane_offsets(radius))
    mirrored = {(-y, -x) for y, x in offsets}
    assert not offsets & mirrored
    assert offsets | mirrored | {(0, 0)} == disc
