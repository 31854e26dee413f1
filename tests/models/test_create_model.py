from __future__ import annotations

import json

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file

from ppl.errors import PPLError, PPLFileNotFoundError, PPLTypeError, PPLValueError
from ppl.models import create_model


def make(**kwargs):
    return create_model(**{"backbone": "test_resnet", "num_classes": 4, "pretrained": False, **kwargs})


def test_the_backbone_has_no_head():
    model = make(drop_path_rate=0.1)
    assert list(model.backbone.state_dict()) == list(timm.create_model("test_resnet", num_classes=0).state_dict())
    assert model.mode == "progressive"
    assert model.training
    assert model.config["source"] == {
        "backbone": "test_resnet",
        "output_stride": None,
        "timm_kwargs": {"drop_path_rate": 0.1},
    }


@pytest.mark.parametrize("kind", ["safetensors", "pth", "pth with state_dict"])
def test_weights_of_a_classifier_in_a_checkpoint_are_ignored(tmp_path, kind):
    torch.manual_seed(1)
    donor = timm.create_model("test_resnet", num_classes=1000)
    path = tmp_path / ("a.safetensors" if kind == "safetensors" else "a.pth")
    if kind == "safetensors":
        save_file(donor.state_dict(), path)
    elif kind == "pth":
        torch.save(donor.state_dict(), path)
    else:
        torch.save({"epoch": 3, "state_dict": {f"module.{k}": v for k, v in donor.state_dict().items()}}, path)
    model = make(checkpoint_path=path)
    x = torch.randn(1, 3, 64, 64)
    torch.testing.assert_close(model.eval().backbone.forward_features(x), donor.eval().forward_features(x))


def test_checkpoint_of_another_model_names_the_first_differences(tmp_path):
    save_file(timm.create_model("test_efficientnet").state_dict(), tmp_path / "a.safetensors")
    with pytest.raises(PPLValueError, match=r"a\.safetensors is a checkpoint of another model.*lacks conv1\.0\.weight"):
        make(checkpoint_path=tmp_path / "a.safetensors")
    state = timm.create_model("test_resnet").state_dict()
    state["conv1.0.weight"] = torch.zeros(1, 2, 3, 4)
    del state["bn1.bias"]
    save_file(state, tmp_path / "b.safetensors")
    with pytest.raises(
        PPLValueError, match=r"lacks bn1\.bias; it differs in conv1\.0\.weight has shape \(1, 2, 3, 4\)"
    ):
        make(checkpoint_path=tmp_path / "b.safetensors")


def test_a_checkpoint_without_batch_counters_is_loaded(tmp_path):
    donor = timm.create_model("test_resnet").state_dict()
    save_file({name: value for name, value in donor.items() if "num_batches" not in name}, tmp_path / "a.safetensors")
    state = make(checkpoint_path=tmp_path / "a.safetensors").backbone.state_dict()
    assert all(torch.equal(value, donor[name]) for name, value in state.items())


def test_the_number_of_classes_may_be_a_numpy_integer(tmp_path):
    model = make(num_classes=np.int64(4))
    assert json.loads(json.dumps(model.config))["num_classes"] == 4


def test_checkpoint_is_never_unpickled(tmp_path):
    class Trap:
        def __reduce__(self):
            return (pytest.fail, ("unpickled",))

    torch.save({"state_dict": Trap()}, tmp_path / "a.pth")
    with pytest.raises(PPLValueError, match=r"a\.pth cannot be read as plain tensors"):
        make(checkpoint_path=tmp_path / "a.pth")


def test_broken_and_missing_checkpoints_are_named(tmp_path):
    for name in ("a.safetensors", "b.pth"):
        (tmp_path / name).write_bytes(b"no weights")
        with pytest.raises(PPLValueError, match=name):
            make(checkpoint_path=tmp_path / name)
    torch.save([1, 2], tmp_path / "c.pth")
    with pytest.raises(PPLValueError, match="no state_dict"):
        make(checkpoint_path=tmp_path / "c.pth")
    with pytest.raises(PPLFileNotFoundError, match=r"nothing\.pth"):
        make(checkpoint_path=tmp_path / "nothing.pth")


def test_output_stride_gives_a_finer_map():
    model = make(output_stride=16).eval()
    assert model.stride == 16
    assert model.class_maps(torch.randn(1, 3, 64, 96)).shape == (1, 4, 4, 6)


@pytest.mark.parametrize(("name", "family"), [("vgg11", "vgg"), ("densenet121", "densenet")])
def test_family_without_output_stride_is_named(name, family):
    with pytest.raises(PPLValueError, match=f"family '{family}' of '{name}' cannot have output_stride=16"):
        create_model(name, 4, pretrained=False, output_stride=16)


def test_the_error_of_an_unknown_name_offers_the_nearest_names():
    with pytest.raises(PPLValueError, match=r"no model 'resnt50': did you mean.*resnet50"):
        create_model("resnt50", 4)


def test_argument_that_the_family_lacks_is_named():
    with pytest.raises(PPLValueError, match=r"cannot create 'test_resnet' with .*no_such"):
        make(no_such=1)


def test_unavailable_pretrained_weights_are_a_clear_error(monkeypatch):
    create = timm.create_model

    def offline(name, pretrained=False, **kwargs):
        if pretrained:
            raise OSError("no connection")
        return create(name, **kwargs)

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(PPLError, match=r"'test_resnet' are not available \(OSError: no connection\): give a file"):
        make(pretrained=True)


@pytest.mark.parametrize(
    ("num_classes", "error", "words"),
    [(["cat", "cat"], PPLValueError, "names 'cat' twice"), ("20", PPLTypeError, "a whole number or a list of names")],
)
def test_classes_are_a_number_or_names_that_differ(num_classes, error, words):
    with pytest.raises(error, match=words):
        create_model("test_resnet", num_classes, pretrained=False)
