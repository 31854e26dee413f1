from __future__ import annotations

import math

import pytest
import torch

from ppl.errors import PPLValueError
from ppl.train.auxiliary import AUXILIARY, Views, consistency, equivariance, patch_logits, transform_view
from ppl.train.losses import multilabel_soft_margin


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


def test_consistency_averages_over_the_maps_whose_class_is_present(generator):
    a, b = torch.randn(2, 3, 4, 5, generator=generator), torch.randn(2, 3, 4, 5, generator=generator)
    targets = torch.tensor([[1.0, 0.0, 1.0], [0.0, 0.0, 1.0]])
    expected = torch.stack(
        [(a[0, 0] - b[0, 0]).abs().mean(), (a[0, 2] - b[0, 2]).abs().mean(), (a[1, 2] - b[1, 2]).abs().mean()]
    )
    torch.testing.assert_close(consistency(a, b, targets), expected.mean())
    assert consistency(a, b, torch.zeros(2, 3)).item() == 0.0


@pytest.mark.parametrize("grid", [(2, 2), (3, 2), (1, 4), (4, 4)])
@pytest.mark.parametrize("size", [(6, 8), (5, 7), (4, 5)])
def test_patches_are_scored_by_the_mean_of_the_cells_that_they_have(grid, size, generator):
    maps = torch.randn(2, 3, *size, generator=generator)
    height, width = math.ceil(size[0] / grid[0]), math.ceil(size[1] / grid[1])
    patches = [
        maps[:, :, top : top + height, left : left + width]
        for top in range(0, size[0], height)
        for left in range(0, size[1], width)
    ]
    scores = torch.stack([patch.mean(dim=(2, 3)) for patch in patches])
    torch.testing.assert_close(patch_logits(maps, grid, pool="max"), scores.max(dim=0).values)
    soft = torch.exp(3 * scores).mean(dim=0).log() / 3
    torch.testing.assert_close(patch_logits(maps, grid, pool="lse", sharpness=3.0), soft)


def test_gradients_of_patch_scores_are_finite_where_a_patch_is_all_padding():
    maps = torch.randn(1, 2, 5, 5, requires_grad=True)
    patch_logits(maps, (4, 4)).sum().backward()
    assert maps.grad is not None
    assert maps.grad.isfinite().all()


def test_an_unknown_way_to_pool_patches_is_refused():
    with pytest.raises(PPLValueError, match='"max" or "lse"'):
        patch_logits(torch.zeros(1, 1, 2, 2), (1, 1), pool="mean")


@pytest.mark.parametrize("flip", [False, True])
def test_equivariance_is_zero_for_equivariant_maps_alone(flip, generator):
    maps = torch.rand(2, 3, 8, 6, generator=generator)
    view = transform_view(maps, scale=1.0, flip=flip)
    assert equivariance(maps, view, torch.ones(2, 3), flip=flip).item() == 0.0
    assert equivariance(maps, view, torch.ones(2, 3), flip=not flip).item() > 0.1


def test_equivariance_does_not_depend_on_the_scale_of_the_maps(generator):
    maps = torch.rand(1, 2, 8, 6, generator=generator) + 0.5
    assert equivariance(maps, 7 * maps, torch.ones(1, 2), flip=False).item() < 1e-4


@pytest.mark.parametrize(("scale", "size"), [(0.5, (4, 8)), (0.3, (2, 4)), (1.5, (10, 22))])
def test_views_have_the_scaled_size(scale, size):
    assert transform_view(torch.zeros(1, 3, 7, 15), scale=scale, flip=True).shape[-2:] == size


@pytest.mark.parametrize("name", AUXILIARY)
def test_every_loss_is_a_scalar_with_gradients_to_the_branches_it_compares(name, generator):
    branches = [torch.randn(2, 3, 6, 6, generator=generator, requires_grad=True) for _ in range(3)]
    views = Views(
        images=torch.randn(2, 3, 48, 48, generator=generator),
        targets=torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 1.0]]),
        branches=branches,
        grids=((2, 2), (3, 3)),
        maps_of=lambda images: torch.nn.functional.adaptive_avg_pool2d(images, 3) * branches[2].mean(),
        pool=lambda maps: maps.mean(dim=(2, 3)),
    )
    loss = AUXILIARY[name](views, multilabel_soft_margin)
    assert loss.shape == ()
    assert loss >= 0
    loss.backward()
    patched = [branch.grad is not None and bool(branch.grad.any()) for branch in branches[:2]]
    assert all(patched)


def test_each_branch_is_classified_on_its_own(generator):
    branches = [torch.randn(2, 3, 4, 4, generator=generator) for _ in range(2)]
    targets = torch.eye(2, 3)
    views = Views(
        torch.zeros(2, 3, 8, 8), targets, branches, ((2, 2),), lambda x: x, lambda maps: maps.mean(dim=(2, 3))
    )
    expected = sum(multilabel_soft_margin(maps.mean(dim=(2, 3)), targets) for maps in branches) / 2
    torch.testing.assert_close(AUXILIARY["branches"](views, multilabel_soft_margin), expected)
