"""Plugins from the command line: parts of one's own in a recipe, in a process of its own."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from processes import PPL, run_code

EXAMPLES = Path(__file__).parents[2] / "examples"
PLUGINS = ("new_layout", "new_loss", "new_cam_method", "new_refiner")
RECIPE = """
plugins: [new_layout, new_loss, new_cam_method, new_refiner]
data: {root: pictures, layout: named_files, train: null, val: null}
model: {backbone: test_resnet, mode: baseline, pretrained: false}
train: {epochs: 1, batch_size: 2, size: [64, 64], num_workers: 0, loss: focal, loss_options: {gamma: 1.5}}
cam: {scales: [1.0], method: xgradcam}
refine: ["median: 3"]
segment: null
faithfulness: 0
device: cpu
num_workers: 1
"""


def ppl(*words: object, folder: Path) -> tuple[int, str, str]:
    return run_code(PPL, *words, cwd=folder)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recipe with the modules that it names beside it, the pictures, and the finished run."""
    folder = tmp_path_factory.mktemp("project")
    for name in PLUGINS:
        shutil.copy(EXAMPLES / f"{name}.py", folder)
    (folder / "pictures").mkdir()
    for number, tags in enumerate(["cat", "dog", "cat+dog", "dog"]):
        pixels = np.random.default_rng(number).integers(0, 255, (64, 64, 3), np.uint8)
        Image.fromarray(pixels).save(folder / "pictures" / f"{tags}_{number}.jpg")
    (folder / "recipe.yaml").write_text(RECIPE)
    (folder / "elsewhere").mkdir()
    code, _, error = ppl("run", "../recipe.yaml", "--out", "../run", "--quiet", folder=folder / "elsewhere")
    assert code == 0, error
    return folder


def test_a_recipe_uses_a_layout_a_loss_a_method_and_a_refiner_of_ones_own(project: Path) -> None:
    assert len(list((project / "run" / "refined" / "all").glob("*.png"))) == 4
    recipe = (project / "run" / "recipe.yaml").read_text()
    assert all(f"- {name}\n" in recipe for name in PLUGINS)


@pytest.mark.parametrize("source", ["run", "run/recipe.yaml"])
def test_a_run_folder_makes_no_code_run_by_itself(project: Path, source: str) -> None:
    for name in PLUGINS:  # the stored recipe finds them, if something imports them
        shutil.copy(project / f"{name}.py", project / "run")
    code, _, error = ppl("run", source, "--quiet", folder=project)
    assert code == 2
    error = " ".join(error.split())
    options = " ".join(f"--plugin {name}" for name in PLUGINS)
    assert "A stored recipe does not make code run" in error and f"add {options} if you trust" in error


def test_a_run_goes_on_with_the_plugins_that_are_named(project: Path) -> None:
    options = [word for name in PLUGINS for word in ("--plugin", name)]
    code, out, error = ppl("refine", "run", *options, "--quiet", folder=project)
    assert code == 0, error
    assert "refined 4 masks of all (0 new)" in out


def test_an_edited_refiner_makes_the_masks_again(project: Path) -> None:
    with (project / "new_refiner.py").open("a") as file:
        file.write("# edited\n")
    options = [word for name in PLUGINS for word in ("--plugin", f"{name}.py")]
    code, out, error = ppl("refine", "run", *options, "--quiet", folder=project)
    assert code == 0, error
    assert "refined 4 masks of all (4 new)" in out


def test_a_folder_of_cams_is_refined_by_a_refiner_of_ones_own(project: Path) -> None:
    words = ("--images", "pictures", "--out", "masks", "--refiners", "median", "--quiet")
    code, _, error = ppl("refine", "run/cams/all", *words, folder=project)
    assert code == 2 and "no refiner named 'median'" in error
    code, out, _ = ppl("refine", "run/cams/all", *words, "--plugin", "new_refiner", folder=project)
    assert code == 0 and "4 masks in masks" in out


def test_a_folder_that_holds_a_recipe_makes_no_code_run(project: Path, tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text("plugins: [evil]\ndata: {root: .}\n")
    (tmp_path / "evil.py").write_text("raise SystemExit('executed')\n")
    code, _, error = ppl("run", tmp_path, "--quiet", folder=project)
    assert code == 2 and "--plugin evil" in error and "executed" not in error
