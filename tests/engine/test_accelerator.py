from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState, PartialState

from ppl.backbones import half
from ppl.engine import open_accelerator
from ppl.errors import PPLValueError


@pytest.fixture(autouse=True)
def no_state_of_other_tests():
    for state in (AcceleratorState, GradientState, PartialState):
        state._shared_state.clear()


def test_runs_of_different_precision_can_follow_each_other(monkeypatch):
    monkeypatch.setattr(half, "_cpu_has_bfloat16", lambda: True)
    found = []
    for precision in ("no", "bf16", "no"):
        with open_accelerator(precision, "cpu") as accelerator:
            found.append(accelerator.mixed_precision)
    assert found == ["no", "bf16", "no"]


@pytest.mark.parametrize("fails", [False, True])
def test_an_accelerator_of_the_caller_keeps_its_settings(fails):
    own = Accelerator(cpu=True, mixed_precision="bf16", gradient_accumulation_steps=4)
    model = own.prepare(torch.nn.Linear(2, 2))
    try:
        with open_accelerator("no", "cpu") as accelerator:
            assert (accelerator.mixed_precision, accelerator.gradient_accumulation_steps) == ("no", 1)
            if fails:
                raise KeyboardInterrupt
    except KeyboardInterrupt:
        pass
    assert (own.mixed_precision, own.gradient_accumulation_steps, own.device.type) == ("bf16", 4, "cpu")
    assert Accelerator(mixed_precision="bf16", cpu=True).mixed_precision == "bf16"
    with own.autocast():
        assert (torch.ones(1, 2) @ torch.ones(2, 2)).dtype == torch.bfloat16
    own.backward(model(torch.ones(1, 2)).sum())
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_random_numbers_and_thread_count_of_the_caller_are_restored():
    def draw():
        return random.random(), np.random.rand(), torch.rand(2).tolist()  # noqa: NPY002

    state = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    expected, threads = draw(), torch.get_num_threads()
    random.setstate(state[0]), np.random.set_state(state[1]), torch.set_rng_state(state[2])  # noqa: NPY002
    with open_accelerator(device="cpu", seed=3):
        first = draw()
        torch.set_num_threads(threads + 1)
    assert torch.get_num_threads() == threads
    assert draw() == expected
    with open_accelerator(device="cpu", seed=3):
        assert draw() == first


def test_a_cpu_without_bfloat16_trains_in_float32_with_a_warning(monkeypatch):
    monkeypatch.setattr(half, "_cpu_has_bfloat16", lambda: False)
    with pytest.warns(UserWarning, match="float32"), open_accelerator("bf16", "cpu") as accelerator:
        assert accelerator.mixed_precision == "no"


@pytest.mark.parametrize("device", ["gpu", "cuda:99", "cuda:x"])
def test_a_missing_device_is_refused(device):
    with pytest.raises(PPLValueError, match=f"device '{device}' is not"), open_accelerator("no", device):
        pass


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_cuda_without_a_gpu_is_refused():
    with pytest.raises(PPLValueError, match="torch sees 0 GPUs"), open_accelerator("no", "cuda"):
        pass


def test_mps_without_it_is_refused(monkeypatch):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(PPLValueError, match='"mps" is not there'), open_accelerator("no", "mps"):
        pass
