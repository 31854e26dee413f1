from __future__ import annotations

import pytest
import torch
from torch import nn

from ppl.engine.batch_norm import choose_batch_norm, freeze_batch_norm_affine, set_train_mode


@pytest.fixture
def net():
    return nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Dropout())


def test_learnt_statistics_are_frozen_and_fresh_ones_live(net):
    assert choose_batch_norm(net) == "live"
    net.train()(torch.randn(2, 3, 4, 4))
    assert choose_batch_norm(net) == "frozen"
    assert choose_batch_norm(net, "live") == "live"


def test_a_model_without_batch_norm_has_live_statistics():
    assert choose_batch_norm(nn.Conv2d(3, 4, 1)) == "live"


@pytest.mark.parametrize(("policy", "moves"), [("frozen", False), ("live", True)])
def test_statistics_move_only_when_live(net, policy, moves):
    set_train_mode(net.eval(), policy)
    before = net[1].running_mean.clone()
    net(torch.randn(2, 3, 4, 4))
    assert (not torch.equal(net[1].running_mean, before)) is moves
    assert net[2].training


def test_only_the_affine_parameters_of_norms_are_frozen(net):
    freeze_batch_norm_affine(net)
    assert [name for name, parameter in net.named_parameters() if parameter.requires_grad] == ["0.weight", "0.bias"]


@pytest.mark.parametrize("affine", [True, False])
def test_norms_of_frozen_modules_keep_their_statistics_when_the_others_are_live(affine):
    net = nn.Sequential(nn.BatchNorm2d(4, affine=affine), nn.BatchNorm2d(4, affine=affine))
    set_train_mode(net, "live", frozen=[net[0]])
    assert [norm.training for norm in net] == [False, True]
