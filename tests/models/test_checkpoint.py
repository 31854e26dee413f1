from __future__ import annotations

import json
import pickle

import pytest
import safetensors
import torch
from safetensors.torch import save_file
from torch import nn

from ppl.errors import PPLFileNotFoundError, PPLTypeError, PPLValueError
from ppl.io.files import FileWriteError
from ppl.models import PPLNet, create_model, load_model, save_model
from ppl.models.weights import read_weights


def make(**kwargs):
    settings = {"cuts": ["layer1", "layer2"], "pretrained": False, "grids": [(4, 2), 3], **kwargs}
    return create_model("test_resnet", 4, **settings)


@pytest.mark.parametrize("mode", ["baseline", "control", "progressive", "explicit"])
def test_file_gives_the_model_back(tmp_path, mode):
    model = make(mode=mode, output_stride=16, padding="replicate", drop_path_rate=0.1).eval()
    model.classes = ("a", "b", "c", "d")
    model.set_phase(0)
    save_model(model, tmp_path / "m.safetensors")
    loaded = load_model(tmp_path / "m.safetensors").eval()
    assert loaded.config == model.config
    assert (loaded.phase, loaded.classes, loaded.stride) == (0, model.classes, 16)
    x = torch.randn(1, 3, 64, 80)
    assert torch.equal(loaded(x), model(x))
    assert [p.name for p in tmp_path.iterdir()] == ["m.safetensors"]


def test_header_is_readable_json(tmp_path):
    save_model(make(), tmp_path / "m.safetensors")
    with safetensors.safe_open(tmp_path / "m.safetensors", "pt") as file:
        header = json.loads(file.metadata()["ppl"])
    assert header["config"]["source"]["backbone"] == "test_resnet"
    assert header["phase"] == 1


def custom():
    return nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 8, 3, 2, 1), nn.Conv2d(8, 6, 3, 1, 1))


def test_a_model_on_a_custom_module_is_loaded_into_that_module(tmp_path):
    model = PPLNet(custom(), 3, mode="explicit", cuts=["0"], stages=["0", "1", "2"]).eval()
    save_model(model, tmp_path / "m.safetensors")
    with pytest.raises(PPLValueError, match=r"pass load_model\(path, backbone=\.\.\.\)"):
        load_model(tmp_path / "m.safetensors")
    loaded = load_model(tmp_path / "m.safetensors", backbone=custom()).eval()
    x = torch.randn(1, 3, 32, 32)
    assert torch.equal(loaded(x), model(x))


def test_checkpoint_of_another_model_names_the_first_differences(tmp_path):
    path = tmp_path / "m.safetensors"
    save_model(PPLNet(custom(), 3, mode="explicit", cuts=["0"], stages=["0", "1", "2"]), path)
    with pytest.raises(
        PPLValueError, match=r"of another model: it lacks backbone\.1\.0\.weight, .* unknown backbone\.1\.bias"
    ):
        load_model(path, backbone=nn.Sequential(custom()[0], nn.Sequential(custom()[1]), custom()[2]))
    with pytest.raises(
        PPLValueError, match=r"differs in backbone\.1\.weight has shape \(8, 8, 3, 3\), not \(8, 8, 1, 1\)"
    ):
        load_model(path, backbone=nn.Sequential(custom()[0], nn.Conv2d(8, 8, 1, 2), custom()[2]))


def test_files_of_other_kinds_are_named(tmp_path):
    save_file({"a": torch.zeros(1)}, tmp_path / "bare.safetensors")
    with pytest.raises(PPLValueError, match=r"bare\.safetensors was not written by ppl\.save_model"):
        load_model(tmp_path / "bare.safetensors")
    (tmp_path / "p.safetensors").write_bytes(pickle.dumps({"a": 1}))
    with pytest.raises(PPLValueError, match=r"p\.safetensors is a pickle, as torch\.save writes"):
        load_model(tmp_path / "p.safetensors")
    save_model(make(), tmp_path / "m.safetensors")
    (tmp_path / "half.safetensors").write_bytes((tmp_path / "m.safetensors").read_bytes()[:1000])
    with pytest.raises(PPLValueError, match=r"half\.safetensors is not a whole .*download or copy cut short"):
        load_model(tmp_path / "half.safetensors")
    with pytest.raises(PPLFileNotFoundError, match=r"nothing\.safetensors"):
        load_model(tmp_path / "nothing.safetensors")


@pytest.mark.parametrize(
    ("content", "cause"),
    [
        (b"", "is empty: fetch it again"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "is a pointer of Git LFS"),
        (b"\n<!DOCTYPE html><html><body>sign in</body></html>", "is a web page"),
    ],
)
@pytest.mark.parametrize("name", ["w.safetensors", "w.pth"])
def test_files_that_hold_no_weights_are_named_with_the_likely_cause(tmp_path, name, content, cause):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(PPLValueError, match=rf"{name} {cause}"):
        read_weights(tmp_path / name)


def test_a_path_that_cannot_be_written_is_a_clear_error(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(FileWriteError, match="cannot write"):
        save_model(make(), tmp_path / "file" / "m.safetensors")


def test_only_models_are_saved(tmp_path):
    with pytest.raises(PPLTypeError, match="got Linear"):
        save_model(nn.Linear(1, 1), tmp_path / "m.safetensors")
    model = make(norm_layer=nn.BatchNorm2d)
    with pytest.raises(PPLTypeError, match="JSON cannot represent"):
        save_model(model, tmp_path / "m.safetensors")
    assert not list(tmp_path.iterdir())


def test_a_file_of_torch_save_is_named_as_such(tmp_path):
    torch.save(torch.nn.Linear(2, 1).state_dict(), tmp_path / "model.pth")
    with pytest.raises(PPLValueError, match=r"model\.pth is a pickle, as torch\.save writes, and models are read from"):
        load_model(tmp_path / "model.pth")
