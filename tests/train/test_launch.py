from __future__ import annotations

import pytest
import torch

from ppl.backbones import half
from ppl.errors import PPLValueError
from ppl.train.launch import make_accelerator


def test_runs_of_different_precision_can_follow_each_other(monkeypatch):
    monkeypatch.setattr(half, "_cpu_has_bfloat16", lambda: True)
    assert [make_accelerator(precision, "cpu").mixed_precision for precision in ("no", "bf16", "no")] == [
        "no",
        "bf16",
        "no",
    ]


def test_a_cpu_without_bfloat16_trains_in_float32_and_says_so(monkeypatch):
    monkeypatch.setattr(half, "_cpu_has_bfloat16", lambda: False)
    with pytest.warns(UserWarning, match="float32"):
        assert make_accelerator("bf16", "cpu").mixed_precision == "no"


@pytest.mark.parametrize("device", ["gpu", "cuda:99", "cuda:x"])
def test_a_device_that_is_not_there_is_refused(device):
    with pytest.raises(PPLValueError, match=f"device '{device}' is not"):
        make_accelerator("no", device)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_cuda_without_a_gpu_is_refused():
    with pytest.raises(PPLValueError, match="torch sees 0 GPUs"):
        make_accelerator("no", "cuda")


def test_mps_without_it_is_refused(monkeypatch):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(PPLValueError, match='"mps" is not there'):
        make_accelerator("no", "mps")
