from __future__ import annotations

import copy
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from ppl.layers import PatchLearner


class Classifier(nn.Module):
    """A tail that the model uses by itself and patch by patch."""

    def __init__(self, order="tail first", inner=False):
        super().__init__()
        tail = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2, padding=1), nn.BatchNorm2d(4))
        if order == "tail first":
            self.tail = tail
        self.learner = PatchLearner(nn.Sequential(*tail) if inner else tail, 2)
        if order == "learner first":
            self.tail = tail

    def forward(self, x):
        return self.learner(x) + self.tail(x)


@pytest.mark.parametrize("inner", [False, True])
@pytest.mark.parametrize("order", ["tail first", "learner first"])
def test_a_shared_tail_is_stored_once_by_safetensors_and_loaded_into_both(order, inner, tmp_path):
    model = Classifier(order, inner).eval()
    nn.init.normal_(model.tail[1].running_mean)
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    state = load_file(tmp_path / "model.safetensors")
    names = {name.removeprefix("learner.") for name in state}
    assert len(state) == len(names) == 7
    twin = Classifier(order, inner).eval()
    for _ in range(2):
        twin.load_state_dict(state)
        x = torch.randn(1, 3, 9, 10)
        assert torch.equal(twin(x), model(x))
        assert twin.tail[0].weight is (twin.learner.tail[0].weight)


def test_two_learners_on_one_tail_store_it_once():
    tail = nn.Conv2d(3, 4, 3, padding=1)
    model = nn.ModuleList([PatchLearner(tail, 2), PatchLearner(tail, 3)])
    assert list(model.state_dict()) == ["0.tail.weight", "0.tail.bias"]
    copy.deepcopy(model).load_state_dict(model.state_dict())


@pytest.mark.parametrize("learner", [False, True])
def test_missing_weights_are_still_an_error(learner):
    model = nn.ModuleDict({"learner": PatchLearner(nn.Conv2d(3, 4, 1), 2)}) if learner else Classifier()
    state = model.state_dict()
    model.load_state_dict(state)
    rest = {name: value for name, value in state.items() if not name.endswith("weight") or "tail.1" in name}
    del rest[next(iter(name for name in rest if name.endswith("bias")))]
    with pytest.raises(RuntimeError, match="Missing key"):
        model.load_state_dict(rest)


def test_weights_of_a_tail_alone_have_their_own_names():
    assert list(PatchLearner(nn.Conv2d(3, 4, 1), 2).state_dict()) == ["tail.weight", "tail.bias"]


def test_a_learner_runs_in_several_threads_from_its_first_call_on():
    tail = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2, padding=1), nn.BatchNorm2d(4)).eval()
    x = torch.randn(1, 3, 15, 23)
    expected = PatchLearner(tail, 2, padding="replicate")(x)
    for _ in range(5):
        learner = PatchLearner(tail, 2, padding="replicate")
        with ThreadPoolExecutor(4) as pool:
            assert all(torch.equal(output, expected) for output in pool.map(learner, [x] * 8))
