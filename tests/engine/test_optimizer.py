from __future__ import annotations

import pytest
import torch
from torch import nn

from ppl.engine.optimizer import build_optimizer, param_groups, poly_schedule
from ppl.errors import PPLValueError


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
        self.head = nn.Conv2d(4, 2, 1)


def groups_of(net, **options):
    groups = param_groups(net.backbone.named_parameters(), net.head.named_parameters(), lr=0.1, **options)
    return {group["name"]: group for group in groups}


def rates_of(total, steps, **options):
    """Return the learning rates of a group with a base rate of 1."""
    optimizer = torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=1.0)
    schedule, rates = poly_schedule(optimizer, total, **options), []
    for step in steps:
        schedule.step_update(step)
        rates.append(optimizer.param_groups[0]["lr"])
    return rates


def test_the_rate_falls_as_a_power_of_the_steps_left():
    assert rates_of(10, (0, 5, 9, 10, 11)) == pytest.approx([1.0, 0.5**0.9, 0.1**0.9, 0.0, 0.0])


def test_warm_up_climbs_to_the_curve():
    rates = rates_of(100, range(6), warmup=4)
    assert rates[:4] == pytest.approx([0.0, 0.25, 0.5, 0.75])
    assert rates[4:] == rates_of(100, (4, 5))


def test_a_power_of_zero_keeps_the_rate():
    assert rates_of(10, range(10), power=0.0) == [1.0] * 10


def test_a_run_of_one_step_has_the_full_rate_and_no_warning(caplog):
    assert rates_of(1, (0,)) == [1.0]
    assert not caplog.records


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
def test_the_schedule_scales_the_own_rate_of_every_group(name):
    optimizer = build_optimizer(name, list(groups_of(Net(), weight_decay=0.0).values()))
    schedule = poly_schedule(optimizer, 4, power=1.0)
    schedule.step_update(2)
    schedule.step_update(3)
    assert {g["name"]: g["lr"] for g in optimizer.param_groups}["head.weight"] == 0.25


def test_sgd_with_momentum_follows_the_textbook_formula():
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
