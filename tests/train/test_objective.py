from __future__ import annotations

import contextlib
import copy

import pytest
import torch
import torch.nn.functional as F

from ppl.errors import PPLValueError
from ppl.models import create_model
from ppl.train.auxiliary import AUXILIARY
from ppl.train.losses import multilabel_soft_margin
from ppl.train.objective import Objective, unfit_auxiliary
from ppl.train.schedules import PLAIN


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, 3, 64, 64, generator=generator), torch.tensor([[1.0, 0.0, 1.0], [0.0, 1.0, 0.0]])


@pytest.mark.parametrize("mode", ["baseline", "control", "progressive", "explicit"])
def test_without_auxiliary_losses_the_objective_is_the_loss_of_the_logits(mode, make_model, batch):
    model = make_model(mode).eval()
    objective = Objective(model, multilabel_soft_margin)
    losses = objective(*batch, torch.ones(()))
    assert objective.names == ("loss",)
    torch.testing.assert_close(losses["loss"], F.binary_cross_entropy_with_logits(model(batch[0]), batch[1]))


def test_auxiliary_losses_are_added_with_their_weights_and_the_ramp(make_model, batch):
    model = make_model().eval()
    objective = Objective(model, multilabel_soft_margin, {"consistency": 4.0, "branches": {"weight": 0.5}})
    total, classes, consistency, branches = (v.item() for v in objective(*batch, torch.tensor(0.25)).values())
    assert objective.names == ("loss", "loss_class", "loss_consistency", "loss_branches")
    assert total == pytest.approx(classes + 0.25 * (4.0 * consistency + 0.5 * branches))
    patched, whole = model.branch_class_maps(batch[0])
    picked = batch[1].bool()
    assert consistency == pytest.approx((patched - whole)[picked].abs().mean().item())


def test_phases_move_the_cut(make_model, batch):
    model = make_model().eval()
    for norm in model.modules():
        if isinstance(norm, torch.nn.BatchNorm2d):
            torch.nn.init.ones_(norm.weight)  # timm initialises residual branches to add nothing
    objective = Objective(model, multilabel_soft_margin)
    losses = []
    for phase in (0, 1, PLAIN):
        objective.set_phase(phase)
        losses.append(objective(*batch, torch.ones(()))["loss"].item())
    assert len(set(losses)) == 3


def test_plain_phase_is_the_linear_classifier_of_the_unpatched_map(make_model, batch):
    model = make_model("explicit").eval()
    objective = Objective(model, multilabel_soft_margin)
    objective.set_phase(PLAIN)
    features = model.backbone.forward_features(batch[0])
    weight = sum(classifier.weight for classifier in model.fusion.classifiers)
    logits = F.conv2d(features, weight).mean(dim=(2, 3))
    torch.testing.assert_close(objective(*batch, torch.ones(()))["loss"], multilabel_soft_margin(logits, batch[1]))


def test_losses_are_float32_under_autocast(make_model, batch):
    with torch.autocast("cpu", torch.bfloat16):
        losses = Objective(make_model(), multilabel_soft_margin, {"patches": 1.0, "equivariance": 1.0})(
            *batch, torch.ones(())
        )
    assert {loss.dtype for loss in losses.values()} == {torch.float32}
    losses["loss"].backward()


@pytest.mark.parametrize("mode", ["baseline", "control", "progressive", "explicit"])
@pytest.mark.parametrize("name", AUXILIARY)
def test_each_mode_refuses_exactly_its_unfit_losses(mode, name, make_model):
    refused = pytest.raises(PPLValueError, match=f"mode '{mode}' has none")
    with refused if name in unfit_auxiliary(mode) else contextlib.nullcontext():
        Objective(make_model(mode), multilabel_soft_margin, {name: 1.0})


def test_losses_on_patches_are_refused_by_models_without_patches(make_model):
    with pytest.raises(PPLValueError, match="mode 'baseline' has none"):
        Objective(make_model("baseline"), multilabel_soft_margin, {"consistency": 1.0})
    with pytest.raises(PPLValueError, match="mode 'control' has none"):
        Objective(make_model("control"), multilabel_soft_margin, {"patches": 1.0})
    with pytest.raises(PPLValueError, match="no auxiliary loss named 'consistancy'"):
        Objective(make_model(), multilabel_soft_margin, {"consistancy": 1.0})


def test_a_loss_that_fails_in_a_phase_is_named_with_phase_and_size(make_model):
    objective = Objective(make_model(grids=[2, 3]), multilabel_soft_margin, {"branches": 1.0, "patches": 1.0})
    objective.check([0], (64, 64))
    for phases, where in (([0, 1], "phase 1"), ([PLAIN, 0], "the warm-up")):
        with pytest.raises(PPLValueError, match=rf"'patches' fails in {where} on images of 64x64 \(grid 3x3 .* leave"):
            objective.check(phases, (64, 64))
    objective.check([PLAIN, 0, 1], (96, 96))


@pytest.mark.timm_model("test_vit_relpos")
def test_views_of_a_size_that_the_model_refuses_are_found_before_training(make_model):
    model = create_model("test_vit_relpos", 3, mode="baseline", pretrained=False)
    with pytest.raises(PPLValueError, match=r"'equivariance' fails in phase 0 on images of 160x160 \(Input height"):
        Objective(model, multilabel_soft_margin, {"equivariance": 1.0}).check([0], (160, 160))
    Objective(model, multilabel_soft_margin, {"equivariance": {"scale": 1.0}}).check([0], (160, 160))


def test_checking_changes_neither_model_nor_random_state(make_model):
    model = make_model(drop_rate=0.5).train()
    model.set_phase(0)
    before, state = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    objective = Objective(model, multilabel_soft_margin, {"equivariance": 1.0})
    objective.check([PLAIN, 0, 1], (96, 96))
    assert (model.phase, objective.plain, model.training) == (0, False, True)
    assert all(module.training for module in model.modules())
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_the_warm_up_scores_the_patches_of_the_last_phase_from_any_phase(make_model, batch):
    model = make_model(grids=[2, 1]).eval()
    objective, losses = Objective(model, multilabel_soft_margin, {"patches": 1.0}), []
    for phase in (0, 1):
        model.set_phase(phase)
        objective.set_phase(PLAIN)
        losses.append({name: loss.item() for name, loss in objective(*batch, torch.ones(())).items()})
    assert losses[0] == losses[1]


@pytest.mark.parametrize("mode", ["baseline", "control", "progressive", "explicit"])
def test_parameters_without_a_gradient_are_known_before_the_training(mode, make_model, batch):
    model = make_model(mode)
    objective = Objective(model, multilabel_soft_margin)
    phases = [PLAIN, *range(model.num_phases)]

    def without_gradient(phase):
        objective.set_phase(phase)
        objective.zero_grad()
        objective(*batch, torch.ones(()))["loss"].backward()
        return any(p.requires_grad and p.grad is None for p in objective.parameters())

    assert objective.leaves_out_parameters(phases, (64, 64)) == any(map(without_gradient, phases)) is False
    model.backbone.spare = torch.nn.Linear(2, 2)
    assert objective.leaves_out_parameters(phases, (64, 64)) == any(map(without_gradient, phases)) is True
    model.backbone.spare.requires_grad_(False)
    assert not objective.leaves_out_parameters(phases, (64, 64))
