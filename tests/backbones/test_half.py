from __future__ import annotations

import warnings
from types import SimpleNamespace

import pytest
import torch

from ppl.backbones import half
from ppl.backbones.half import half_precision


@pytest.mark.parametrize("machine", ["x86_64", "AMD64"])
def test_a_cpu_without_bfloat16_uses_float32_with_a_warning(machine, monkeypatch):
    monkeypatch.setattr(half.platform, "machine", lambda: machine)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    with pytest.warns(UserWarning, match="no bfloat16 instructions"):
        assert half_precision(torch.device("cpu")) is None


def test_a_cpu_with_bfloat16_uses_bfloat16(monkeypatch):
    monkeypatch.setattr(half.platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert half_precision(torch.device("cpu")) == torch.bfloat16


@pytest.mark.parametrize(("supported", "expected"), [(True, torch.bfloat16), (False, torch.float16)])
def test_a_gpu_uses_a_format_without_emulation(supported, expected, monkeypatch):
    monkeypatch.setattr(
        torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation or supported
    )
    assert half_precision(torch.device("cuda")) == expected


@pytest.mark.parametrize(
    ("answers", "expected"), [({}, None), ({"_is_mkldnn_bf16_supported": lambda: True}, torch.bfloat16)]
)
@pytest.mark.filterwarnings("ignore:this CPU has no bfloat16")
def test_other_processors_are_queried_through_onednn_if_available(answers, expected, monkeypatch):
    monkeypatch.setattr(half.platform, "machine", lambda: "arm64")
    monkeypatch.setattr(torch.ops, "mkldnn", SimpleNamespace(**answers))
    assert half_precision(torch.device("cpu")) == expected
