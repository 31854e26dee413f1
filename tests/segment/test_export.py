from __future__ import annotations

import sys

import pytest
import torch

from ppl.errors import MissingExtraError
from ppl.segment import create_segmenter, export_onnx


def test_the_onnx_file_gives_the_networks_logits_for_other_sizes_and_batches(tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    torch.manual_seed(0)
    model = create_segmenter("test_resnet", 2, decoder="fpn", pretrained=False).train()
    assert export_onnx(model, tmp_path / "model.onnx") < 1e-4
    assert model.training  # the mode is restored
    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"), providers=["CPUExecutionProvider"])
    images = torch.randn(2, 3, 45, 83)
    (logits,) = session.run(None, {"images": images.numpy()})
    with torch.no_grad():
        torch.testing.assert_close(torch.from_numpy(logits), model.eval()(images), atol=1e-4, rtol=1e-4)


def test_missing_packages_are_named_with_the_line_that_installs_them(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    model = create_segmenter("test_resnet", 2, decoder="fpn", pretrained=False)
    with pytest.raises(MissingExtraError, match=r'pip install "ppl-wsss\[onnx\]"'):
        export_onnx(model, tmp_path / "model.onnx")
