from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import yaml

import ppl
import ppl.models.hub
from ppl.errors import PPLError, PPLFileNotFoundError, PPLValueError
from ppl.segment import Segmenter, create_segmenter


def a_classifier() -> ppl.PPLNet:
    model = ppl.create_model("test_resnet", 2, mode="baseline", pretrained=False).eval()
    model.classes = ("cat", "dog")
    return model


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    folder.mkdir()
    manifest = {
        "versions": {"torch": "2.6"},
        "classes": ["cat", "dog"],
        "data": {"root": "/home/me/photos", "images": {"train": 80, "val": 20}, "left_out": {"x": "broken"}},
        "scores": {"val": {"CAM mIoU": 0.5, "segmenter mIoU": 0.625, "refined mIoU": None}},
        "scored": {"val": {"images": 18, "of": 20}},
        "thresholds": {"val": {"default": "auto", "best": 0.3, "best_chosen_on": "val", "images": 18}},
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    (folder / "recipe.yaml").write_text("data: {root: /home/me/photos}\ntrain: {epochs: 3}\n")
    return folder


def test_a_folder_gives_the_same_classifier_back(tmp_path):
    model = a_classifier()
    model.save_pretrained(tmp_path / "out")
    again = ppl.PPLNet.from_pretrained(tmp_path / "out")
    images = torch.randn(1, 3, 64, 64)
    assert torch.equal(again(images), model(images))
    assert again.classes == ("cat", "dog") and not again.training
    assert "not known" in (tmp_path / "out/README.md").read_text()


def test_a_folder_gives_the_same_segmenter_back_and_no_other_kind(tmp_path):
    model = create_segmenter("test_resnet", 2, decoder="fpn", pretrained=False).eval()
    model.save_pretrained(tmp_path)
    again = Segmenter.from_pretrained(tmp_path)
    images = torch.randn(1, 3, 64, 64)
    assert torch.equal(again(images), model(images))
    with pytest.raises(PPLValueError, match="was not written by"):
        ppl.PPLNet.from_pretrained(tmp_path)


def test_the_card_names_data_recipe_scores_and_the_split_of_the_thresholds(tmp_path, run):
    a_classifier().save_pretrained(tmp_path / "out", run=run)
    text = (tmp_path / "out/README.md").read_text()
    _, head, body = text.split("---\n", 2)
    assert yaml.safe_load(head)["library_name"] == "ppl"
    assert "| val | segmenter mIoU | 62.5 | 18 |" in body
    assert "| val | auto | 0.3 | val (18 images) |" in body
    assert "80 of train, 20 of val" in body and "root: photos" in body and "epochs: 3" in body
    assert "/home/me" not in body


def test_the_card_of_another_run_is_refused(tmp_path, run):
    model = a_classifier()
    model.classes = ("cat", "cow")
    with pytest.raises(PPLValueError, match=r"cat, dog.*cat, cow"):
        model.save_pretrained(tmp_path / "out", run=run)
    with pytest.raises(PPLFileNotFoundError, match=r"manifest\.json"):
        model.save_pretrained(tmp_path / "out", run=tmp_path)
    assert not (tmp_path / "out").exists()


def test_an_upload_holds_the_file_and_its_card(monkeypatch, run):
    calls = []

    class Hub:
        def __init__(self, token=None):
            calls.append(("token", token))

        def create_repo(self, repo_id, **options):
            calls.append((repo_id, options))

        def upload_folder(self, *, folder_path, **options):
            calls.append(sorted(path.name for path in Path(folder_path).iterdir()))
            assert "from_pretrained('me/cats')" in (Path(folder_path) / "README.md").read_text()
            return "commit"

    monkeypatch.setattr(ppl.models.hub, "HfApi", Hub)
    assert a_classifier().push_to_hub("me/cats", run=run, private=True, token="secret") == "commit"
    assert calls == [
        ("token", "secret"),
        ("me/cats", {"private": True, "exist_ok": True}),
        ["README.md", "model.safetensors"],
    ]


def test_a_repository_that_is_not_there_is_an_error_that_says_so(monkeypatch):
    def fail(*args, **kwargs):
        raise FileNotFoundError("no connection")

    monkeypatch.setattr(ppl.models.hub, "hf_hub_download", fail)
    with pytest.raises(PPLError, match=r"me/cats is no folder.*no connection"):
        Segmenter.from_pretrained("me/cats")
