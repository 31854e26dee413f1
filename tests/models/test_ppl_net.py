from __future__ import annotations

import copy
import json
import pickle

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
from torch import nn

from ppl.errors import PPLTypeError, PPLValueError
from ppl.models import PPLNet

CUTS = ("layer1", "layer2", "layer3")


def make_backbone(**kwargs):
    torch.manual_seed(0)
    # timm starts residual branches at zero: only 1x1 shortcuts would act, and patches would change nothing.
    return timm.create_model("test_resnet", num_classes=0, zero_init_last=False, **kwargs)


def make_model(mode, cuts=CUTS, grids=2, padding="zeros", **kwargs):
    """Build a model that pads patches with zeros by default, as the figures draw them."""
    return PPLNet(make_backbone(), 5, mode=mode, cuts=cuts, grids=grids, padding=padding, **kwargs)


def figure(model, x, cut, *, detach=False):
    """Compute one patch branch of the figures by hand: blocks, slices, blocks after the cut, concatenation."""
    net = model.backbone
    blocks = [net.layer1, net.layer2, net.layer3, net.layer4]
    number = CUTS.index(cut) + 1
    features = net.maxpool(net.act1(net.bn1(net.conv1(x))))
    for block in blocks[:number]:
        features = block(features)
    if detach:
        features = features.detach()
    h, w = features.shape[2] // 2, features.shape[3] // 2
    rows = []
    for r in range(2):
        row = []
        for c in range(2):
            patch = features[:, :, r * h : (r + 1) * h, c * w : (c + 1) * w]
            for block in blocks[number:]:
                patch = block(patch)
            row.append(patch)
        rows.append(torch.cat(row, dim=3))
    return torch.cat(rows, dim=2)


def classify(model, maps):
    wide = torch.cat([classifier.weight for classifier in model.fusion.classifiers], dim=1)
    return F.conv2d(torch.cat(maps, dim=1), wide)


@pytest.mark.parametrize("phase", [0, 1, 2])
def test_progressive_is_figure_2(phase):
    model = make_model("progressive").eval()
    model.set_phase(phase)
    x = torch.randn(2, 3, 64, 128)
    expected = classify(model, [figure(model, x, CUTS[phase]), model.backbone.forward_features(x)])
    torch.testing.assert_close(model.class_maps(x), expected)
    torch.testing.assert_close(model(x), expected.mean((2, 3)))


def test_explicit_is_figure_5():
    model = make_model("explicit").eval()
    x = torch.randn(2, 3, 64, 128)
    maps = [figure(model, x, cut) for cut in CUTS] + [model.backbone.forward_features(x)]
    torch.testing.assert_close(model.class_maps(x), classify(model, maps))
    assert model.num_phases == 1


@pytest.mark.parametrize("mode", ["control", "progressive", "explicit"])
def test_gradients_are_those_of_the_figure(mode):
    """Figure 5 detaches every patch branch before its cut, but not the un-patched branch; figure 2 detaches nothing."""
    model = make_model(mode).eval()
    x = torch.randn(2, 3, 64, 64)
    model.class_maps(x).square().sum().backward()
    found = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    model.zero_grad()
    explicit = mode == "explicit"
    whole = model.backbone.forward_features(x)
    maps = (
        [whole]
        if mode == "control"
        else [figure(model, x, cut, detach=explicit) for cut in CUTS[0 if explicit else 2 :]]
    )
    classify(model, [*maps, whole]).square().sum().backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(found[name], parameter.grad, rtol=1e-3, atol=1e-4, msg=name)


def test_without_the_unpatched_branch_no_gradient_passes_an_explicit_cut():
    for mode, reaches in (("explicit", False), ("progressive", True)):
        model = make_model(mode, cuts=["layer2"])
        nn.init.zeros_(model.fusion.classifiers[-1].weight)
        model(torch.randn(2, 3, 64, 64)).sum().backward()
        assert bool(model.backbone.conv1[0].weight.grad.any()) is reaches
        assert model.backbone.layer3[0].conv1.weight.grad.any()


def test_baseline_is_an_ordinary_cam_classifier():
    model = make_model("baseline").eval()
    x = torch.randn(2, 3, 60, 90)
    expected = F.conv2d(model.backbone.forward_features(x), model.fusion.classifiers[0].weight)
    torch.testing.assert_close(model.class_maps(x), expected)
    assert model.cuts == ()
    assert len(model.branch_class_maps(x)) == 1


def test_control_has_the_parameters_of_progressive_and_no_patches():
    model = make_model("control").eval()
    x = torch.randn(2, 3, 60, 90)
    whole = model.backbone.forward_features(x)
    torch.testing.assert_close(model.class_maps(x), classify(model, [whole, whole]))
    shapes = {name: value.shape for name, value in model.state_dict().items()}
    assert shapes == {name: value.shape for name, value in make_model("progressive").state_dict().items()}


@pytest.mark.parametrize(("mode", "tails"), [("baseline", 0), ("control", 0), ("progressive", 1), ("explicit", 3)])
def test_layers_before_the_cut_see_the_image_once(mode, tails):
    """The layers before the first cut see the image once, for any number of branches."""
    model = make_model(mode, cuts=CUTS if mode == "explicit" else ["layer2"])
    pixels, tail_rows = [], []
    model.backbone.conv1.register_forward_hook(lambda m, a, out: pixels.append(a[0].shape))
    model.backbone.layer4.register_forward_hook(lambda m, a, out: tail_rows.append(len(out)))
    model(torch.randn(3, 3, 128, 128))
    real = [shape for shape in pixels if shape == (3, 3, 128, 128)]
    assert len(real) == 1
    assert sum(shape.numel() for shape in pixels) <= (3 * 3 * 128 * 128) + tails * 3 * 32 * 32
    assert tail_rows == [3] + [3 * 4] * tails


@pytest.mark.parametrize("mode", ["progressive", "explicit"])
def test_batch_norm_before_the_cut_sees_the_images_only(mode):
    model, x = make_model(mode, cuts=["layer2"]).train(), torch.randn(4, 3, 64, 64)
    plain = copy.deepcopy(model.backbone).train()
    model(x)
    plain.forward_features(x)
    for name in ("bn1", "layer1.0.bn1", "layer2.0.bn2"):
        found, expected = model.backbone.get_submodule(name), plain.get_submodule(name)
        assert found.num_batches_tracked == expected.num_batches_tracked == 1
        torch.testing.assert_close(found.running_mean, expected.running_mean)
        assert found.training
    assert model.backbone.layer3[0].bn1.num_batches_tracked == 2


def test_phases_share_all_weights_and_move_the_cut():
    model = make_model("progressive").eval()
    assert (model.num_phases, model.phase, model.cuts) == (3, 2, CUTS)
    keys, x = list(model.state_dict()), torch.randn(1, 3, 64, 64)
    outputs = []
    for phase in range(3):
        model.set_phase(phase)
        assert model.phase == phase
        assert list(model.state_dict()) == keys
        outputs.append(model(x))
    assert not torch.equal(outputs[0], outputs[1])
    assert not torch.equal(outputs[1], outputs[2])


def test_branches_sum_to_the_class_maps():
    model, x = make_model("explicit").eval(), torch.randn(1, 3, 64, 64)
    branches = model.branch_class_maps(x)
    assert len(branches) == 4
    torch.testing.assert_close(sum(branches), model.class_maps(x))
    torch.testing.assert_close(model.pool(model.class_maps(x)), model(x))


def test_keys_are_those_of_timm_and_of_the_fusion():
    keys = list(make_model("progressive").state_dict())
    expected = [f"backbone.{key}" for key in make_backbone().state_dict()]
    assert keys == [*expected, "fusion.classifiers.0.weight", "fusion.classifiers.1.weight"]


def test_copies_and_pickles_are_independent():
    model, x = make_model("explicit").eval(), torch.randn(1, 3, 64, 96)
    expected = model(x)
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        torch.testing.assert_close(twin(x), expected)
        for parameter in twin.parameters():
            nn.init.zeros_(parameter)
        assert not twin(x).any()
        torch.testing.assert_close(model(x), expected)


@pytest.mark.parametrize("mode", ["control", "progressive", "explicit"])
@pytest.mark.parametrize("size", [(64, 64), (75, 117)])
def test_odd_sizes_single_images_and_oblong_grids(mode, size):
    model = make_model(mode, cuts=["layer1", "layer2"], grids=[(4, 2), (1, 3)]).eval()
    x = torch.randn(1, 3, *size)
    assert model.class_maps(x).shape[2:] == model.backbone.forward_features(x).shape[2:]


def test_one_grid_per_cut_or_one_for_all():
    assert make_model("explicit", grids=3).grids == ((3, 3),) * 3
    assert make_model("explicit", grids=(4, 2)).grids == ((4, 2),) * 3
    assert make_model("explicit", grids=[4, 2, (2, 1)]).grids == ((4, 4), (2, 2), (2, 1))
    assert make_model("explicit", cuts=CUTS[:2], grids=[4, 2]).grids == ((4, 4), (2, 2))
    with pytest.raises(PPLValueError, match=r"one entry for each of 3 cuts, got \[4, 2\]"):
        make_model("explicit", grids=[4, 2])


def test_default_cuts_are_the_last_three_before_the_final_stage():
    assert PPLNet(make_backbone(), 5, mode="progressive").cuts == CUTS


def test_cuts_by_index():
    assert make_model("progressive", cuts=[2, 3]).cuts == ("layer2", "layer3")


@pytest.mark.parametrize("name", ["test_efficientnet", "test_convnext", "test_byobnet"])
def test_other_families(name):
    model = PPLNet(timm.create_model(name, num_classes=0), 5, mode="explicit").eval()
    x = torch.randn(2, 3, 96, 128)
    assert model.class_maps(x).shape[2:] == model.backbone.forward_features(x).shape[2:]
    torch.testing.assert_close(model(x)[:1], model(x[:1]), rtol=1e-3, atol=1e-4)


def make_custom():
    return nn.Sequential(
        nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU()),
        nn.Sequential(nn.Conv2d(8, 12, 3, 2, 1), nn.ReLU()),
        nn.Conv2d(12, 10, 3, 1, 1),
    )


def test_custom_backbone_by_stage_names():
    model = PPLNet(make_custom(), 4, mode="explicit", cuts=["0", "1"], stages=["0", "1", "2"]).eval()
    x = torch.randn(2, 3, 33, 47)
    assert model.class_maps(x).shape == (2, 4, 9, 12)
    assert model.data_config["mean"] == (0.485, 0.456, 0.406)
    assert model.stride == 4


def test_normalisation_comes_from_the_backbone():
    assert make_model("baseline").data_config["mean"] == (0.5, 0.5, 0.5)


def test_config_is_plain_json():
    config = make_model("explicit", grids=[4, 2, (2, 1)], halo=8).config
    assert json.loads(json.dumps(config)) == config
    assert config["grids"] == [[4, 4], [2, 2], [2, 1]]
    assert config["cuts"] == list(CUTS)
    rebuilt = PPLNet(make_backbone(), **{key: value for key, value in config.items() if key != "source"})
    assert rebuilt.config == config


def test_smallest_size_leaves_a_cell_for_every_patch():
    model = make_model("progressive", cuts=["layer3"], grids=[(4, 2)]).eval()
    assert model.min_size == (64, 32)
    assert model(torch.randn(1, 3, 64, 32)).shape == (1, 5)
    with pytest.raises(PPLValueError, match=r"grid 4x2 is larger than the 3x2 map"):
        model(torch.randn(1, 3, 48, 32))


def test_half_precision_and_autocast():
    model, x = make_model("explicit").eval(), torch.randn(1, 3, 64, 64)
    expected = model(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(model(x).float(), expected, rtol=0.1, atol=0.1)
    assert model.to(torch.bfloat16)(x.bfloat16()).dtype == torch.bfloat16


def test_model_compiles_in_one_graph():
    model, x = make_model("explicit", cuts=CUTS[1:]).eval(), torch.randn(2, 3, 64, 64)
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(x), model(x))


def test_gradient_checkpointing_gives_the_same_gradients():
    model, x = make_model("progressive").eval(), torch.randn(2, 3, 64, 64)
    model(x).sum().backward()
    expected = model.backbone.conv1[0].weight.grad.clone()
    model.zero_grad()
    model.backbone.set_grad_checkpointing(True)
    model.train()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    model(x).sum().backward()
    torch.testing.assert_close(model.backbone.conv1[0].weight.grad, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"mode": "both"}, "mode must be one of baseline, control, progressive, explicit, got 'both'"),
        ({"cuts": ["layer9"]}, "layer9.*layer1.*layer2.*layer3"),
        ({"cuts": ["layer4"]}, "layer4"),
        ({"cuts": []}, "needs at least one cut"),
        ({"cuts": ["layer1", "layer1"]}, "twice"),
        ({"grids": 0}, "at least one row"),
        ({"padding": "wrap"}, "padding"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(PPLValueError, match=message):
        PPLNet(make_backbone(), 5, **{"mode": "progressive", **arguments})


def test_name_instead_of_a_module_is_an_error():
    with pytest.raises(PPLTypeError, match=r"got str: ppl\.create_model takes names"):
        PPLNet("resnet50", 5, mode="baseline")


@pytest.mark.parametrize("phase", [-1, 3])
def test_phase_that_does_not_exist_is_an_error(phase):
    with pytest.raises(PPLValueError, match=rf"0\.\.2 in mode 'progressive', got {phase}"):
        make_model("progressive").set_phase(phase)
    with pytest.raises(PPLValueError, match=r"0\.\.0 in mode 'explicit'"):
        make_model("explicit").set_phase(1)


@pytest.mark.parametrize("arguments", [{"grids": [2, 2]}, {"pooling": "median"}, {"num_classes": 0}])
def test_a_backbone_has_no_hooks_of_a_model_that_could_not_be_built(arguments):
    backbone = make_backbone()
    with pytest.raises(PPLValueError):
        PPLNet(backbone, **{"num_classes": 5, "mode": "progressive", "cuts": ["layer2"], **arguments})
    assert not any(module._forward_hooks for module in backbone.modules())


def test_a_pair_of_numpy_integers_is_one_grid_for_all_cuts():
    assert make_model("explicit", cuts=["layer2", "layer3"], grids=tuple(np.array([2, 3]))).grids == ((2, 3), (2, 3))
