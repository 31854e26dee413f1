from __future__ import annotations

import copy
import weakref

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ppl.models import create_model
from ppl.models.recompute import _halves


class LiveBytes(TorchDispatchMode):
    """Count the bytes of all live tensors that were made in this mode, and their peak."""

    def __init__(self):
        super().__init__()
        self.live, self.peak, self.known = 0, 0, weakref.WeakSet()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        known = {id(leaf.untyped_storage()) for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)}
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor):
                storage = leaf.untyped_storage()
                if id(storage) not in known and storage not in self.known:
                    self.known.add(storage)
                    self.live += storage.nbytes()
                    weakref.finalize(storage, self.forget, storage.nbytes())
        self.peak = max(self.peak, self.live)
        return result

    def forget(self, count):
        self.live -= count


def make(mode, **options):
    torch.manual_seed(0)
    return create_model("test_resnet", 3, **{"mode": mode, "pretrained": False, **options})


def gradients(model, images):
    torch.manual_seed(1)
    model.zero_grad()
    model(images).square().sum().backward()
    return {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}


@pytest.mark.parametrize("mode", ["progressive", "explicit"])
@pytest.mark.parametrize("padding", ["zeros", "replicate"])
def test_recomputed_branches_give_the_same_gradients_and_statistics(mode, padding):
    kept = make(mode, padding=padding, drop_path_rate=0.3).train()
    recomputed = copy.deepcopy(kept)
    recomputed.set_grad_checkpointing()
    images = torch.randn(3, 3, 64, 64)
    expected, found = gradients(kept, images), gradients(recomputed, images)
    assert expected.keys() == found.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient)
    for name, value in kept.state_dict().items():
        torch.testing.assert_close(recomputed.state_dict()[name], value)
    assert all(norm.momentum == 0.1 for norm in recomputed.modules() if isinstance(norm, torch.nn.BatchNorm2d))


@pytest.mark.parametrize("batch", [1, 3])
def test_halves_of_a_batch_give_the_gradients_of_the_whole(batch):
    kept = make("explicit", padding="replicate").eval()
    recomputed = copy.deepcopy(kept)
    recomputed.set_grad_checkpointing()
    images = torch.randn(batch, 3, 64, 96)
    expected, found = gradients(kept, images), gradients(recomputed, images)
    assert expected.keys() == found.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient)


def test_features_at_several_resolutions_are_halved_together():
    torch.manual_seed(0)
    model = create_model("hrnet_w18_small", 3, mode="explicit", cuts=["stage3"], pretrained=False).eval().double()
    images = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    expected = gradients(model, images)
    model.set_grad_checkpointing()
    found = gradients(model, images)
    for name in ("fusion.classifiers.0.weight", "backbone.stage4.0.branches.0.0.conv1.weight"):
        torch.testing.assert_close(found[name], expected[name])


@pytest.mark.parametrize("images", [1, 2, 3])
def test_halves_of_features_with_several_rows_an_image_hold_whole_images(images):
    pixels, patches = torch.arange(4 * images).reshape(-1, 1), torch.arange(images)
    halves = _halves((pixels, patches))
    assert len(halves) == min(images, 2)
    for rows, own in halves:
        assert torch.equal(rows.reshape(-1, 4)[:, 0], 4 * own)
    assert torch.equal(torch.cat([own for _, own in halves]), patches)


@pytest.mark.parametrize(("frozen", "bar"), [(True, 1.6), (False, 2.0)])
def test_explicit_with_three_cuts_takes_at_most_twice_the_activations_of_the_baseline(frozen, bar):
    images = torch.randn(2, 3, 160, 160)
    peaks = {}
    for name, mode in (("baseline", "baseline"), ("kept", "explicit"), ("recomputed", "explicit")):
        model = make(mode).train(not frozen)
        if name == "recomputed":
            model.set_grad_checkpointing()
        gradients(model, images)  # creates the gradients
        with LiveBytes() as count:
            model(images).square().sum().backward()
        peaks[name] = count.peak
    assert peaks["recomputed"] <= bar * peaks["baseline"]
    assert peaks["recomputed"] < peaks["kept"]
