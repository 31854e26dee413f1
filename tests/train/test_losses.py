from __future__ import annotations

import functools

import pytest
import torch

from ppl.errors import PPLValueError
from ppl.train.losses import LOSSES, asymmetric, bce, build_loss, multilabel_soft_margin, register_loss


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(5, 7, generator=generator) * 4
    return logits, (torch.rand(5, 7, generator=generator) > 0.6).float()


def test_soft_margin_is_the_mean_cross_entropy_of_the_sigmoids(batch):
    logits, targets = batch
    p = 1 / (1 + torch.exp(-logits))
    expected = -(targets * p.log() + (1 - targets) * (1 - p).log()).mean()
    torch.testing.assert_close(multilabel_soft_margin(logits, targets), expected)


def test_smoothing_draws_the_targets_towards_one_half(batch):
    logits, targets = batch
    p = 1 / (1 + torch.exp(-logits))
    soft = torch.where(targets == 1, 0.85, 0.15)
    torch.testing.assert_close(
        bce(logits, targets, label_smoothing=0.3), -(soft * p.log() + (1 - soft) * (1 - p).log()).mean()
    )
    torch.testing.assert_close(bce(logits, targets, label_smoothing=0.0), multilabel_soft_margin(logits, targets))


def test_asymmetric_and_its_gradient_are_those_of_the_papers_equation(batch):
    logits, targets = batch[0].requires_grad_(), batch[1]
    exact = logits.detach().double().requires_grad_()
    p = exact.sigmoid()
    shifted = (p - 0.1).clamp(min=0)
    expected = torch.where(targets == 1, -(1 - p) * p.log(), -(shifted**3) * (1 - shifted).log()).mean()
    value = asymmetric(logits, targets, gamma_pos=1.0, gamma_neg=3.0, clip=0.1)
    torch.testing.assert_close(value.double(), expected, rtol=1e-5, atol=1e-6)
    (slope,), (expected_slope,) = torch.autograd.grad(value, logits), torch.autograd.grad(expected, exact)
    torch.testing.assert_close(slope.double(), expected_slope, rtol=1e-4, atol=1e-6)


def test_asymmetric_without_focus_and_clip_is_soft_margin(batch):
    torch.testing.assert_close(
        asymmetric(*batch, gamma_pos=0.0, gamma_neg=0.0, clip=0.0), multilabel_soft_margin(*batch)
    )


@pytest.mark.parametrize("name", sorted(set(LOSSES) - {"asymmetric"}))  # timm computes in float32
def test_gradients_are_those_of_finite_differences(name):
    logits = torch.randn(3, 4, dtype=torch.float64, requires_grad=True, generator=torch.Generator().manual_seed(1))
    targets = torch.eye(3, 4, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda z: build_loss(name)(z, targets), (logits,))


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("scale", [0.0, 200.0])
def test_extreme_logits_keep_loss_and_gradient_finite(name, scale):
    logits = torch.tensor([[scale, -scale]], requires_grad=True)
    loss = build_loss(name)(logits, torch.tensor([[0.0, 1.0]]))
    loss.backward()
    assert loss.isfinite()
    assert loss > 0
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize("option", ["gamma_pos", "gamma_neg"])
@pytest.mark.parametrize("gamma", [0.0, 1.0, 1.5, 4.0])
def test_focusing_keeps_gradients_finite_where_a_probability_is_0_or_1(option, gamma):
    logits = torch.tensor([[-200.0, -20.0, 0.0, 20.0, 200.0]] * 2, requires_grad=True)
    build_loss("asymmetric", {option: gamma})(logits, torch.tensor([[0.0] * 5, [1.0] * 5])).backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


def test_registered_losses_need_no_type_hints(monkeypatch):
    def bare(logits, targets, *, factor=1.0):
        return factor * (logits - targets).mean()

    monkeypatch.setattr(LOSSES, "_parts", {})
    register_loss("bare", bare)
    register_loss("ready", functools.partial(bare, factor=2.0))
    assert build_loss("bare", {"factor": 3})(torch.ones(1, 2), torch.zeros(1, 2)).item() == 3.0
    assert build_loss("ready", {"factor": 4})(torch.ones(1, 2), torch.zeros(1, 2)).item() == 4.0


@pytest.mark.parametrize("option", ["gamma_pos", "gamma_neg"])
def test_powers_with_infinite_gradients_are_refused(option):
    with pytest.raises(PPLValueError, match=f"{option}=0.5 .* must be 0, or 1 and more"):
        build_loss("asymmetric", {option: 0.5})


def test_unknown_names_and_options_are_refused_with_the_known_ones():
    with pytest.raises(PPLValueError, match="no loss named 'softmax'"):
        build_loss("softmax")
    with pytest.raises(PPLValueError, match="it knows label_smoothing"):
        build_loss("bce", {"smoothing": 0.1})
