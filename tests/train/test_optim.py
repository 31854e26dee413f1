from __future__ import annotations

import pytest
import torch
from torch import nn

from ppl.errors import PPLValueError
from ppl.train.optim import build_optimizer, param_groups, poly, set_lr


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
        self.head = nn.Conv2d(4, 2, 1)


def groups_of(net, **options):
    groups = param_groups(net.backbone.named_parameters(), net.head.named_parameters(), lr=0.1, **options)
    return {group["name"]: group for group in groups}


def test_the_rate_falls_as_a_power_of_the_steps_left():
    assert [poly(step, 10) for step in (0, 5, 9)] == pytest.approx([1.0, 0.5**0.9, 0.1**0.9])
    assert poly(10, 10) == poly(11, 10) == 0.0


def test_warm_up_climbs_to_the_curve():
    rates = [poly(step, 100, warmup=4) for step in range(6)]
    assert rates[0] == pytest.approx(0.2)
    assert rates[4:] == [poly(4, 100), poly(5, 100)]


def test_norms_and_biases_are_not_decayed_and_the_head_learns_faster():
    groups = groups_of(Net(), weight_decay=0.01)
    assert {name: (g["lr"], g["weight_decay"]) for name, g in groups.items()} == {
        "backbone.weight": (0.1, 0.01),
        "backbone.bias": (0.1, 0.0),
        "backbone.norm": (0.1, 0.0),
        "head.weight": (1.0, 0.01),
        "head.bias": (1.0, 0.0),
    }
    assert sum(len(g["params"]) for g in groups.values()) == len(list(Net().parameters()))


def test_four_group_recipe_doubles_the_biases():
    groups = groups_of(Net(), weight_decay=5e-4, bias_lr_mult=2.0)
    assert (groups["backbone.bias"]["lr"], groups["head.bias"]["lr"]) == (0.2, 2.0)


def test_everything_can_be_decayed():
    assert all(
        group["weight_decay"] == 0.5 for group in groups_of(Net(), weight_decay=0.5, decay_norm_and_bias=True).values()
    )


def test_frozen_parameters_are_left_out_and_nothing_to_train_is_an_error():
    net = Net()
    net.backbone.requires_grad_(False)
    assert set(groups_of(net, weight_decay=0.0)) == {"head.weight", "head.bias"}
    net.requires_grad_(False)
    with pytest.raises(PPLValueError, match="nothing to train"):
        groups_of(net, weight_decay=0.0)


def test_sgd_gets_its_momentum_and_decay_in_the_right_places():
    groups = list(groups_of(Net(), weight_decay=1e-4).values())
    optimizer = build_optimizer("sgd", groups, momentum=0.8)
    assert {(g["momentum"], g["weight_decay"]) for g in optimizer.param_groups} == {(0.8, 1e-4), (0.8, 0.0)}


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_setting_the_rate_scales_every_groups_own(name):
    optimizer = build_optimizer(name, list(groups_of(Net(), weight_decay=0.0).values()))
    set_lr(optimizer, 0.5)
    set_lr(optimizer, 0.25)
    assert {g["name"]: g["lr"] for g in optimizer.param_groups}["head.weight"] == 0.25


def test_sgd_step_with_momentum_is_the_textbook_one():
    weight = nn.Parameter(torch.tensor([[1.0]]))
    optimizer = build_optimizer(
        "sgd", param_groups([], [("w", weight)], lr=0.1, head_lr_mult=1.0, weight_decay=0.0), momentum=0.5
    )
    expected, velocity = 1.0, 0.0
    for _ in range(3):
        optimizer.zero_grad()
        (weight**2).sum().backward()
        optimizer.step()
        velocity = 0.5 * velocity + 2 * expected
        expected -= 0.1 * velocity
    assert weight.item() == pytest.approx(expected)


def test_an_unknown_optimizer_is_refused():
    with pytest.raises(PPLValueError, match="choose adamw or sgd"):
        build_optimizer("adam", [])
