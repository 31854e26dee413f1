from __future__ import annotations

import math
import pickle

import pytest
import torch

from ppl.errors import PPLValueError
from ppl.layers import GranularityFusion, register_pooling
from ppl.layers.pooling import POOLINGS, build_pooling, generalised_mean, log_sum_exp, ngwp
from ppl.models import ModelConfig, create_model, load_model, save_model


@pytest.fixture
def maps():
    return 3 * torch.randn(2, 3, 4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def test_log_sum_exp_follows_its_equation_and_lies_between_mean_and_maximum(maps):
    for r in (0.5, 2.0):
        torch.testing.assert_close(log_sum_exp(maps, r), torch.exp(r * maps).mean(dim=(2, 3)).log() / r)
    torch.testing.assert_close(log_sum_exp(maps, 1e-5), maps.mean(dim=(2, 3)), atol=1e-3, rtol=0)
    torch.testing.assert_close(log_sum_exp(maps, 1e4), maps.amax(dim=(2, 3)), atol=1e-3, rtol=0)


def test_generalised_mean_is_the_mean_of_probabilities(maps):
    for power in (1.0, 3.0):
        mean = (torch.sigmoid(maps) ** power).mean(dim=(2, 3)) ** (1 / power)
        torch.testing.assert_close(generalised_mean(maps, power), torch.logit(mean))


@pytest.mark.parametrize("value", [-3.0, 0.0, 3.0, 15.0, 20.0, 60.0])
@pytest.mark.parametrize("power", [1.0, 3.0, 20.0])
def test_generalised_mean_keeps_value_and_gradient_up_to_probabilities_near_1(value, power):
    wide = value + torch.linspace(-2, 2, 20, dtype=torch.float64).view(1, 1, 4, 5)
    wide.requires_grad_()
    mean = torch.sigmoid(wide).pow(power).mean().pow(1 / power)
    maps = wide.detach().float().requires_grad_()
    pooled = generalised_mean(maps, power)
    pooled.sum().backward()
    assert maps.grad is not None
    if value < 30:  # The sigmoid of larger values is 1 in float64.
        torch.logit(mean).backward()
        torch.testing.assert_close(pooled.item(), torch.logit(mean).item(), rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(maps.grad.double(), wide.grad, rtol=1e-4, atol=1e-6)
    # Near 1 the complements are averaged: every cell has a gradient, and the gradients sum to one.
    elif power == 1:
        torch.testing.assert_close(pooled.item(), -(-wide).exp().mean().log().item(), rtol=1e-5, atol=0.0)
        torch.testing.assert_close(maps.grad.sum().item(), 1.0, rtol=1e-4, atol=0.0)


@pytest.mark.parametrize("value", [-3.0, 0.5, 2.0, 8.0])
@pytest.mark.parametrize("power", [1.0, 3.0])
def test_gradients_of_the_generalised_mean_are_those_of_finite_differences(value, power, maps):
    near = (maps[:1] / 3 + value).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: generalised_mean(x, power), (near,))


def test_ngwp_follows_its_equation_cell_by_cell(maps):
    pooled = ngwp(maps, 2.0)
    for image, own in zip(maps, pooled, strict=True):
        for k in range(3):
            won, say = 0.0, 0.0
            for cell in image.flatten(1).T:
                share = math.exp(cell[k]) / (math.e + sum(math.exp(value) for value in cell))
                won, say = won + share, say + share * float(cell[k])
            size = won / 20
            assert math.isclose(own[k], say / (1 + won) + (1 - size) ** 2 * math.log(0.01 + size))


def test_ngwp_lowers_the_logit_of_a_class_if_another_class_wins_its_cells(maps):
    rival = maps.clone()
    rival[:, 1] += 5
    assert (ngwp(rival)[:, 0] < ngwp(maps)[:, 0]).all()


@pytest.mark.parametrize("name", sorted(set(POOLINGS) - {"ngwp"}))
def test_a_constant_map_pools_to_its_constant(name):
    pooled = build_pooling(name)(torch.full((2, 3, 4, 4), -1.5))
    torch.testing.assert_close(pooled, torch.full((2, 3), -1.5))


@pytest.mark.parametrize("name", POOLINGS)
def test_gradients_are_those_of_finite_differences(name, maps):
    assert torch.autograd.gradcheck(build_pooling(name), (maps[:1].clone().requires_grad_(),))


@pytest.mark.parametrize("name", POOLINGS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("value", [0.0, 60.0, -60.0])
def test_extreme_maps_stay_finite_in_every_precision(name, dtype, value):
    maps = torch.full((1, 1, 3, 3), value, dtype=dtype, requires_grad=True)
    pooled = build_pooling(name)(maps)
    assert pooled.dtype == dtype
    pooled.sum().backward()
    assert pooled.isfinite().all()
    assert maps.grad is not None
    assert maps.grad.isfinite().all()


@pytest.mark.parametrize(
    "text", ["mean", "", "average:2", "max:1", "log_sum_exp:x", "log_sum_exp:0", "log_sum_exp:-1", "ngwp:0.5"]
)
def test_unknown_poolings_and_invalid_numbers_are_refused(text):
    with pytest.raises(PPLValueError, match="pooling"):
        build_pooling(text)


def test_the_fusion_uses_the_given_pooling():
    fusion = GranularityFusion((4, 4), 3, pooling="log_sum_exp:2")
    features = [torch.randn(2, 4, 5, 5), torch.randn(2, 4, 5, 5)]
    expected = torch.exp(2 * fusion.class_maps(features)).mean(dim=(2, 3)).log() / 2
    torch.testing.assert_close(fusion(features), expected)
    torch.testing.assert_close(pickle.loads(pickle.dumps(fusion))(features), expected)
    assert math.isclose(float(GranularityFusion((4,), 1).pool(torch.arange(4.0).view(1, 1, 2, 2))), 1.5)


def softened(maps, share=0.5):
    return share * maps.amax(dim=(2, 3)) + (1 - share) * maps.mean(dim=(2, 3))


def test_a_pooling_from_outside_is_used_by_name_and_saved_with_the_model(tmp_path, monkeypatch):
    monkeypatch.setattr(POOLINGS, "_parts", dict(POOLINGS))
    register_pooling("softened", softened)
    register_pooling("softened", softened)  # a module that is imported twice
    with pytest.raises(PPLValueError, match="already"):
        register_pooling("softened", lambda maps: maps)
    model = create_model("test_resnet", 3, cuts=["layer2"], pooling="softened:0.25", pretrained=False).eval()
    x = torch.randn(1, 3, 64, 64)
    torch.testing.assert_close(model(x), softened(model.class_maps(x), 0.25))
    save_model(model, tmp_path / "model.safetensors")
    assert torch.equal(load_model(tmp_path / "model.safetensors").eval()(x), model(x))
    assert ModelConfig.checked(pooling="softened").pooling == "softened"
    with pytest.raises(PPLValueError, match="did you mean 'softened'"):
        ModelConfig.checked(pooling="softend")
