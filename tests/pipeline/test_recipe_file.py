from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from ppl.errors import PPLError, PPLFileNotFoundError, PPLTypeError, PPLValueError
from ppl.pipeline import CamRecipe, check_recipe, check_section, load_recipe, resolve_recipe
from ppl.pipeline.recipe_file import dump_recipe, read_recipe, with_overrides

DATA = {"data": {"root": "here"}}


def test_an_unknown_key_names_the_nearest_known_one() -> None:
    with pytest.raises(PPLValueError, match=r"train\.epochz; did you mean .epochs.\?"):
        check_recipe(DATA | {"train": {"epochz": 3}})


def test_an_unknown_key_without_a_near_one_lists_the_known_ones() -> None:
    with pytest.raises(PPLValueError, match=r"unknown key zzz; there are: data, model"):
        check_recipe(DATA | {"zzz": 3})


def test_one_line_names_every_fault() -> None:
    faulty = {"model": {"mode": "progresive"}, "cam": {"background": 3}, "refine": ["crff"]}
    with pytest.raises(PPLValueError) as caught:
        check_recipe(DATA | faulty)
    message = str(caught.value)
    assert "progresive" in message and "outside [0, 1]" in message and "crff" in message
    assert "\n" not in message


def test_a_recipe_needs_a_data_set() -> None:
    with pytest.raises(PPLValueError, match="data is missing"):
        check_recipe({})


@pytest.mark.parametrize("text", ["[1, 2", "just words", "- a\n- b", ""])
def test_a_file_that_is_no_recipe_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "recipe.yaml").write_text(text)
    with pytest.raises(PPLValueError, match=r"recipe\.yaml"):
        load_recipe(tmp_path / "recipe.yaml")


def test_paths_in_a_recipe_are_relative_to_it(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("data: {root: pictures}\nmodel: {checkpoint_path: weights.safetensors}\n")
    recipe = load_recipe(tmp_path / "a.yaml")
    assert recipe.data.root == tmp_path / "pictures"
    assert recipe.model.checkpoint_path == tmp_path / "weights.safetensors"


def test_overrides_win_and_are_checked(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("data: {root: pictures}\ntrain: {epochs: 2}\n")
    recipe, run_folder = resolve_recipe(
        tmp_path / "a.yaml", ["train.epochs=7", "cam.scales=[1.0]", "model.cuts=[layer2]"]
    )
    assert (recipe.train.epochs, recipe.cam.scales, recipe.model.cuts, run_folder) == (7, (1.0,), ["layer2"], None)
    for wrong in ("train.epochs", "train.epoch=7", "train.epochs=many", "data.root.x=1"):
        with pytest.raises(PPLError):
            resolve_recipe(tmp_path / "a.yaml", [wrong])


def test_a_missing_source_is_named() -> None:
    with pytest.raises(PPLFileNotFoundError, match="nothing at nowhere"):
        resolve_recipe(Path("nowhere"))


def test_one_section_alone_refuses_keys_of_others() -> None:
    assert check_section(CamRecipe, "cam", {}, ["cam.flip=false"]).flip is False
    with pytest.raises(PPLValueError, match="only keys of cam"):
        check_section(CamRecipe, "cam", {}, ["train.epochs=3"])


@pytest.mark.parametrize("background", ["auto", 0.3, "0.3", "power:4"])
def test_valid_background_rules(background: object) -> None:
    check_recipe(DATA | {"cam": {"background": background}})


@pytest.mark.parametrize("background", ["otsu", "power:", "power:-1", 2, -0.1])
def test_invalid_background_rules(background: object) -> None:
    with pytest.raises(PPLValueError, match=r"cam\.background"):
        check_recipe(DATA | {"cam": {"background": background}})


def test_an_empty_section_has_the_defaults(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text("data: {root: photos}\ncam:\ntrain:\n")
    content = with_overrides(read_recipe(tmp_path / "r.yaml"), ["train.epochs=3"])
    assert check_recipe(content).train.epochs == 3


def test_a_tilde_stands_for_the_home_folder() -> None:
    recipe = check_recipe(with_overrides({}, ["data.root=~/photos", "model.checkpoint_path=~/w.safetensors"]))
    assert recipe.data.root == Path.home() / "photos"
    assert recipe.model.checkpoint_path == Path.home() / "w.safetensors"


def test_an_unknown_key_without_a_value_is_refused(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text("data: {root: photos}\ntypo:\n")
    with pytest.raises(PPLValueError, match="unknown key typo"):
        load_recipe(tmp_path / "r.yaml")


def test_a_list_without_a_value_is_empty(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text("data: {root: photos}\nrefine:\ncompare:\n")
    recipe = load_recipe(tmp_path / "r.yaml")
    assert (recipe.refine, recipe.compare) == ([], [])


@pytest.mark.parametrize("step", ["random_walk: net.safetensors", "random_walk: {affinity: net.safetensors, beta: 4}"])
def test_the_file_of_a_refiner_is_relative_to_the_recipe(tmp_path: Path, step: str) -> None:
    (tmp_path / "a.yaml").write_text(f"data: {{root: photos}}\nrefine: ['crf: irn', {{{step}}}]\n")
    recipe = load_recipe(tmp_path / "a.yaml")
    assert recipe.refine[0] == "crf: irn"
    assert recipe.refine[1]["random_walk"]["affinity"] == str(tmp_path / "net.safetensors")


def test_the_file_of_a_refiner_is_written_as_an_absolute_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    recipe = check_recipe(DATA | {"refine": ["random_walk: net.safetensors", {"random_walk": "~/net.safetensors"}]})
    written = [step["random_walk"]["affinity"] for step in yaml.safe_load(dump_recipe(recipe))["refine"]]
    assert written == [str(tmp_path / "net.safetensors"), str(Path.home() / "net.safetensors")]


def test_a_faulty_refiner_is_reported_with_all_other_faults(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("data: {root: photos}\nrefine: [crff]\ncam: {scales: []}\n")
    with pytest.raises(PPLValueError, match=r"cam\.scales: .*no refiner named 'crff'"):
        load_recipe(tmp_path / "a.yaml")


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ({"cam": {"scales": [0.0]}}, r"cam\.scales\.0: .*greater than 0"),
        ({"cam": {"scales": [1.0, -1.0]}}, r"cam\.scales\.1: .*greater than 0"),
        ({"cam": {"scales": [float("nan")]}}, r"cam\.scales\.0"),
        ({"cam": {"scales": [float("inf")]}}, r"cam\.scales\.0: .*finite"),
        ({"num_workers": 0}, r"num_workers: num_workers must be -1 .* got 0"),
        (
            {"model": {"timm": {"mode": "baseline"}}},
            r"model\.timm: mode is a key of the recipe itself; write model\.mode",
        ),
        ({"model": {"timm": {"num_classes": 3}}}, r"model\.timm: num_classes follows from the data set"),
        ({"model": {"timm": {"in_chans": 1}}}, r"model\.timm: in_chans must be 3, got 1"),
    ],
)
def test_values_that_would_fail_after_training_are_refused(keys: dict[str, object], told: str) -> None:
    with pytest.raises(PPLValueError, match=told):
        check_recipe(DATA | keys)


@pytest.mark.parametrize("content", [None, [1]])
def test_content_that_is_no_mapping_is_named(content: Any) -> None:
    with pytest.raises(PPLTypeError, match="recipe must be a mapping of sections"):
        check_recipe(content)


def test_one_number_in_place_of_a_list_is_told_the_form() -> None:
    with pytest.raises(
        PPLValueError, match=r"cam\.scales: Input should be a list, such as \[1, 2\] \(got '1\.0,0\.5'\)"
    ):
        check_recipe(with_overrides({"data": {"root": "photos"}}, ["cam.scales=1.0,0.5"]))
