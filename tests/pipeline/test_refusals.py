"""Faults that are reported before any work is done or lost."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import ppl
from ppl.cam import iter_generate
from ppl.errors import PPLFileNotFoundError, PPLValueError
from ppl.pipeline import Recipe, RunResult, cam_folder, run_recipe

MakeRecipe = Callable[..., Recipe]


def test_a_fault_of_a_comparison_is_reported_before_any_training(
    tiny_recipe: MakeRecipe, creatures: Path, tmp_path: Path
) -> None:
    model = {"backbone": "test_resnet", "cuts": ["layer1", "layer2"], "pretrained": False}
    recipe = tiny_recipe(creatures, model=model, compare=["baseline"])
    with pytest.raises(PPLValueError, match="phases"):
        run_recipe(recipe, tmp_path, progress=False)
    assert not list(tmp_path.rglob("*.safetensors"))


def test_cams_without_a_trained_model_name_the_command(
    tiny_recipe: MakeRecipe, creatures: Path, tmp_path: Path
) -> None:
    with pytest.raises(PPLValueError, match="ppl train"):
        run_recipe(tiny_recipe(creatures), tmp_path, ("cam",), progress=False)


def test_affinities_without_a_random_walk_are_refused(tiny_recipe: MakeRecipe, creatures: Path) -> None:
    with pytest.raises(PPLValueError, match="random_walk"):
        tiny_recipe(creatures, affinity={}, refine=["crf: irn"])


def test_refused_settings_do_not_stay_in_the_folder(tiny_recipe: MakeRecipe, creatures: Path, copied: Path) -> None:
    before = (copied / "recipe.yaml").read_text()
    other = tiny_recipe(creatures, train=tiny_recipe(creatures).train.model_dump() | {"lr": 0.5})
    with pytest.raises(PPLValueError, match="lr"):
        run_recipe(other, copied, ("train",), progress=False)
    assert (copied / "recipe.yaml").read_text() == before


def test_other_settings_are_reported_before_a_comparison_is_trained(
    tiny_recipe: MakeRecipe, creatures: Path, copied: Path
) -> None:
    shutil.rmtree(copied / "compare")
    train = {"epochs": 1, "batch_size": 4, "size": [64, 64], "num_workers": 0, "lr": 0.5}
    with pytest.raises(PPLValueError, match=r"lr \("):
        run_recipe(tiny_recipe(creatures, train=train, compare=["baseline"]), copied, ("train",), progress=False)
    assert not (copied / "compare").exists()


def test_other_initial_weights_are_refused(tiny_recipe: MakeRecipe, creatures: Path, copied: Path) -> None:
    file = copied.parent / "weights.pth"
    torch.save(ppl.load_model(copied / "last.safetensors").backbone.state_dict(), file)
    model = {"backbone": "test_resnet", "mode": "progressive", "cuts": ["layer2"], "checkpoint_path": str(file)}
    with pytest.raises(PPLValueError, match=r"other weights \(model\.pretrained, model\.checkpoint_path\)"):
        run_recipe(tiny_recipe(creatures, model=model), copied, ("train",), progress=False)


def test_a_missing_network_is_reported_before_any_training(
    tiny_recipe: MakeRecipe, creatures: Path, tmp_path: Path
) -> None:
    with pytest.raises(PPLFileNotFoundError, match=r"typo\.safetensors"):
        run_recipe(tiny_recipe(creatures, refine=["random_walk: typo.safetensors"]), tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("backbone", "method", "told"),
    [
        ("hrnet_w18_small", "sharpened_cam", "use method='cam'"),
        pytest.param(
            "test_vit_relpos", "cam", "was built for images of", marks=pytest.mark.timm_model("test_vit_relpos")
        ),
    ],
)
def test_maps_that_a_model_does_not_have_are_reported_before_any_training(
    tiny_recipe: MakeRecipe, creatures: Path, tmp_path: Path, backbone: str, method: str, told: str
) -> None:
    recipe = tiny_recipe(
        creatures,
        model={"backbone": backbone, "mode": "baseline", "pretrained": False},
        train={"epochs": 1, "batch_size": 4, "size": [160, 160], "num_workers": 0},
        cam={"scales": [1.0], "method": method},
    )
    with pytest.raises(PPLValueError, match=told):
        run_recipe(recipe, tmp_path, progress=False)
    assert not list(tmp_path.rglob("*.safetensors"))


def test_a_method_is_checked_before_the_first_image() -> None:
    model = ppl.create_model("hrnet_w18_small", 4, mode="baseline", pretrained=False)
    with pytest.raises(PPLValueError, match="use method='cam'"):
        iter_generate(model, [], method="sharpened_cam")


def test_zero_workers_are_refused(finished: tuple[Path, RunResult], creatures: Path) -> None:
    out = finished[0] / "elsewhere"
    with pytest.raises(PPLValueError, match="num_workers must be -1"):
        cam_folder(finished[0] / "last.safetensors", creatures / "images", out, num_workers=0)
    assert not out.exists()


def test_a_dark_16_bit_picture_is_one_warning(finished: tuple[Path, RunResult], tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    values = np.linspace(0, 4000, 64 * 64).reshape(64, 64).astype(np.uint16)
    Image.fromarray(values).save(tmp_path / "images" / "dark.png")
    with pytest.warns(UserWarning) as found:
        cam_folder(finished[0] / "last.safetensors", tmp_path / "images", tmp_path / "out", progress=False)
    messages = [str(warning.message) for warning in found if "16 bits" in str(warning.message)]
    assert len(messages) == 1 and "set value_range to the camera's largest value, 4095" in messages[0]
