import pytest
import torch
import torch.nn.functional as F
from torch._subclasses.fake_tensor import FakeTensorMode

from ppl.errors import PPLValueError
from ppl.train.auxiliary import AUXILIARY, Views, patch_scores


def test_patch_scores_are_means_without_the_padding():
    maps = torch.randn(2, 3, 5, 7)
    scores = patch_scores(maps, (2, 3))
    assert scores.shape == (2, 6, 3)
    for row in range(2):
        for column in range(3):
            block = maps[:, :, row * 3 : row * 3 + 3, column * 3 : column * 3 + 3]
            assert torch.allclose(scores[:, row * 3 + column], block.mean(dim=(2, 3)), atol=1e-6)


def test_every_patch_is_classified_with_the_tags_of_the_image():
    maps = torch.randn(2, 3, 4, 4, requires_grad=True)
    targets = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 1.0]])
    views = Views(
        torch.zeros(2, 3, 8, 8), targets, [maps / 2, maps / 2], [(2, 2)], lambda x: x, lambda m: m.mean((2, 3))
    )
    loss = AUXILIARY["every_patch"](views, F.multilabel_soft_margin_loss, grid=2)
    quarters = [maps[:, :, i : i + 2, j : j + 2].mean(dim=(2, 3)) for i in (0, 2) for j in (0, 2)]
    wanted = sum(F.multilabel_soft_margin_loss(quarter, targets) for quarter in quarters) / 4
    assert torch.allclose(loss, wanted, atol=1e-6)
    loss.backward()
    assert bool((maps.grad != 0).all())


def test_patches_of_padding_alone_do_not_count():
    views = Views(
        torch.zeros(1, 3, 8, 8), torch.ones(1, 1), [torch.zeros(1, 1, 5, 5)], [], lambda x: x, lambda m: m.mean((2, 3))
    )
    loss = AUXILIARY["every_patch"](
        views, F.multilabel_soft_margin_loss, grid=4
    )  # cells of the map lie in 3x3 of the 4x4 patches
    assert torch.isclose(loss, torch.tensor(2.0).log())


def test_losses_do_not_wait_for_the_device():
    """Trace without values: an operation that depends on values, such as a boolean index, would fail."""
    with FakeTensorMode():
        targets, maps = torch.ones(2, 3), torch.zeros(2, 3, 5, 5)
        views = Views(torch.zeros(2, 3, 8, 8), targets, [maps], [(4, 4)], lambda x: x, lambda m: m.mean((2, 3)))
        for name, options in (("every_patch", {"grid": 4}), ("patches", {})):
            assert AUXILIARY[name](views, F.multilabel_soft_margin_loss, **options).shape == ()


def test_a_grid_finer_than_the_map_is_refused():
    with pytest.raises(PPLValueError, match="grid 6x2 is larger than the 5x5 map"):
        patch_scores(torch.zeros(1, 3, 5, 5), (6, 2))
