from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from ppl.errors import PPLValueError
from ppl.segment import segmentation_loss


@pytest.fixture
def batch():
    torch.manual_seed(0)
    target = torch.randint(0, 4, (2, 5, 6))
    target[0, :2] = 255
    return torch.randn(2, 4, 5, 6, requires_grad=True), target


@pytest.mark.parametrize("smoothing", [0.0, 0.4])
def test_the_plain_loss_is_torchs_cross_entropy(batch, smoothing):
    logits, target = batch
    expected = F.cross_entropy(logits, target, ignore_index=255, label_smoothing=smoothing)
    torch.testing.assert_close(segmentation_loss(logits, target, label_smoothing=smoothing), expected)


def test_the_balanced_loss_is_the_mean_of_background_and_foreground(batch):
    logits, target = batch
    background = torch.where(target == 0, 0, 255)
    foreground = torch.where(target == 0, 255, target)
    halves = [F.cross_entropy(logits, part, ignore_index=255) for part in (background, foreground)]
    torch.testing.assert_close(segmentation_loss(logits, target, balanced=True), sum(halves) / 2)


def test_weights_count_as_repeated_pixels(batch):
    logits, target = batch
    weight = torch.randint(0, 3, target.shape).float()
    losses = F.cross_entropy(logits, target, ignore_index=255, reduction="none")
    counted = torch.cat([losses[(weight == n) & (target != 255)].repeat(n) for n in (1, 2)])
    torch.testing.assert_close(segmentation_loss(logits, target, weight=weight), counted.mean())


@pytest.mark.parametrize("balanced", [False, True])
def test_a_batch_of_ignored_pixels_has_loss_zero_and_no_gradient(batch, balanced):
    logits, target = batch
    loss = segmentation_loss(logits, torch.full_like(target, 255), balanced=balanced)
    loss.backward()
    assert loss.item() == 0 and not logits.grad.any()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_logits_are_summed_in_float32(batch, dtype):
    logits, target = batch
    assert segmentation_loss(logits.to(dtype), target).dtype == torch.float32


def test_masks_of_another_size_are_refused(batch):
    logits, target = batch
    with pytest.raises(PPLValueError, match="different sizes"):
        segmentation_loss(logits, target[:, :4])
