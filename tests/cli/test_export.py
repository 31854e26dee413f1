from __future__ import annotations

import pytest

import ppl.models
from ppl.cli import main
from ppl.segment import create_segmenter, save_segmenter


@pytest.fixture
def written(monkeypatch):
    found = []

    def export_torch(model, path, **options):
        found.append((type(model).__name__, path.name, options))
        return 0.0

    monkeypatch.setattr(ppl.models, "export_torch", export_torch)
    return found


def run(*arguments):
    with pytest.raises(SystemExit) as stop:
        main(list(map(str, arguments)))
    return stop.value.code


def test_the_file_or_the_run_folder_names_the_network(tmp_path, written):
    model = ppl.create_model("test_resnet", 2, mode="baseline", pretrained=False)
    ppl.save_model(model, tmp_path / "last.safetensors")
    save_segmenter(
        create_segmenter("test_resnet", 2, decoder="fpn", pretrained=False), tmp_path / "segmenter/last.safetensors"
    )
    assert run("export", tmp_path / "last.safetensors", "--torch", tmp_path / "a.pt2", "--size", 64, 96) == 0
    assert run("export", tmp_path, "--torch", tmp_path / "b.pt2") == 0
    assert written == [("PPLNet", "a.pt2", {"size": (64, 96)}), ("Segmenter", "b.pt2", {})]


def test_an_export_to_nothing_is_an_error(tmp_path, capsys):
    assert run("export", tmp_path / "last.safetensors") == 2
    assert "--onnx FILE.onnx or --torch FILE.pt2" in capsys.readouterr().err
