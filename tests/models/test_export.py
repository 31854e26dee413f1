from __future__ import annotations

import json
import sys

import pytest
import torch
from torch import nn

import ppl
from ppl import segment
from ppl.cam import generate
from ppl.errors import MissingExtraError, PPLError
from ppl.models import export_onnx, export_torch
from ppl.segment import create_segmenter


def a_classifier() -> ppl.PPLNet:
    torch.manual_seed(0)
    backbone = nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3, 2, 1), nn.ReLU()
    )
    model = ppl.PPLNet(backbone, 3, mode="progressive", cuts=["2"], stages=["2", "4"]).train()
    model.classes = ("cat", "cow", "dog")
    return model


def test_the_onnx_file_gives_the_networks_logits_for_other_sizes_and_batches(tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    torch.manual_seed(0)
    model = create_segmenter("test_resnet", 2, decoder="fpn", pretrained=False).train()
    assert segment.export_onnx(model, tmp_path / "model.onnx") < 1e-4
    assert model.training  # the mode is restored
    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"), providers=["CPUExecutionProvider"])
    images = torch.randn(2, 3, 45, 83)
    (logits,) = session.run(None, {"images": images.numpy()})
    with torch.no_grad():
        torch.testing.assert_close(torch.from_numpy(logits), model.eval()(images), atol=1e-4, rtol=1e-4)


def test_the_onnx_file_of_a_classifier_gives_the_maps_that_cams_are_read_from(tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    model = a_classifier()
    export_onnx(model, tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"), providers=["CPUExecutionProvider"])
    images = torch.randn(1, 3, 70, 50)
    logits, maps = map(torch.from_numpy, session.run(["logits", "class_maps"], {"images": images.numpy()}))
    (cam,) = generate(model, images, [[0, 1, 2]], scales=(1.0,), flip=False, normalize="none", size="feature")
    torch.testing.assert_close(maps[0].relu(), cam.maps, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(logits[0].sigmoid(), cam.scores, atol=1e-4, rtol=1e-4)
    facts = json.loads(session.get_modelmeta().custom_metadata_map["ppl"])
    assert facts["classes"] == ["cat", "cow", "dog"]
    assert facts["mean"] == list(model.data_config["mean"])


def test_the_torch_program_runs_without_the_classes_of_ppl(tmp_path):
    model = a_classifier()
    assert export_torch(model, tmp_path / "model.pt2") < 1e-4
    assert model.training
    program = torch.export.load(tmp_path / "model.pt2").module()
    images = torch.randn(3, 3, 64, 96)
    with torch.no_grad():
        expected = model.eval().unpatched_class_maps(images)
    logits, maps = program(images)
    torch.testing.assert_close(maps, expected[-1])
    torch.testing.assert_close(logits, sum(expected).mean(dim=(2, 3)))


def test_a_network_of_one_size_is_exported_for_that_size_alone(tmp_path):
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 2))
    with pytest.raises(PPLError, match="--size"):
        export_torch(model, tmp_path / "model.pt2")
    assert not list(tmp_path.iterdir())
    assert export_torch(model, tmp_path / "model.pt2", size=(8, 8)) < 1e-4


def test_missing_packages_are_named_with_the_line_that_installs_them(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingExtraError, match=r'pip install "ppl-wsss\[onnx\]"'):
        export_onnx(nn.Identity(), tmp_path / "model.onnx")
