"""Every example runs as it stands, only smaller."""

from __future__ import annotations

import ast
import runpy
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
SMALL = {
    "training_loop": {"images": 8, "epochs": 2, "size": 64},
    "cams": {"size": 64},
    "refine_maps": {"images": 2, "size": 48},
}
SAYS = {
    "layers_by_hand": "concatenating first changes the class maps by",
    "training_loop": "validation mAP",
    "cams": "overlay.png",
    "new_cam_method": "maps (2, 64, 96) of classes [3, 7]",
    "refine_maps": "the maps as they are",
    "new_loss": "focal loss",
    "new_layout": "[[1.0, 1.0], [0.0, 1.0]]",
    "new_refiner": "pixels of class 1",
    "custom_backbone": "the loaded model gives the same logits: True",
    "torchvision_backbones": "Swin: cuts after",
    "huggingface_backbone": "SwinBackbone: cuts after",
}


def test_every_example_is_run() -> None:
    assert sorted(SAYS) == sorted(path.stem for path in EXAMPLES.glob("*.py"))


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("new_*.py")), ids=lambda path: path.stem)
def test_a_part_of_ones_own_takes_few_lines(path: Path) -> None:
    assert len(path.read_text().splitlines()) < 25


@pytest.mark.parametrize("name", sorted(SAYS))
def test_example_runs_and_says_what_came_out(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if name == "huggingface_backbone":
        pytest.importorskip("transformers")
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(EXAMPLES / f"{name}.py"))["main"](**SMALL.get(name, {}))
    assert SAYS[name] in capsys.readouterr().out


@pytest.mark.parametrize("name", sorted(SAYS))
def test_example_says_what_it_is_for_and_runs_as_a_script(name: str) -> None:
    source = (EXAMPLES / f"{name}.py").read_text()
    assert ast.get_docstring(ast.parse(source))
    assert source.endswith('if __name__ == "__main__":\n    main()\n')
