"""Presets: several keys of a recipe under one name."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from ppl.cam import CamConfig
from ppl.errors import PPLValueError
from ppl.pipeline import PRESETS, check_recipe, resolve_recipe
from ppl.pipeline.recipe_file import dump_recipe

DATA = {"data": {"root": "here"}}


def drawn(recipe: object) -> tuple[object, ...]:
    return recipe.model.padding, recipe.model.pooling, recipe.cam.branch  # type: ignore[attr-defined]


def test_the_paper_is_what_the_figures_draw() -> None:
    assert drawn(check_recipe(DATA | {"preset": "paper"})) == ("zeros", "average", "all")
    assert drawn(check_recipe(DATA)) == ("replicate", "average", "unpatched")


def test_recipes_start_from_propagated_maps_unless_they_decline() -> None:
    assert check_recipe(DATA).cam.method == "propagated_cam"
    assert check_recipe(DATA | {"preset": None}).cam.method == CamConfig().method
    assert check_recipe(DATA | {"cam": {"method": "gradcam"}}).cam.method == "gradcam"


def test_a_key_of_the_recipe_wins_over_its_preset() -> None:
    recipe = check_recipe(DATA | {"preset": "paper", "model": {"padding": "reflect"}})
    assert drawn(recipe) == ("reflect", "average", "all")


def test_a_preset_of_the_command_wins_over_the_recipe_and_not_over_other_options(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("data: {root: .}\nmodel: {padding: reflect}\ncam: {branch: unpatched}\n")
    recipe, _ = resolve_recipe(tmp_path / "a.yaml", ["cam.branch=unpatched"], preset="paper")
    assert drawn(recipe) == ("zeros", "average", "unpatched")


def test_a_written_recipe_keeps_what_its_preset_said(monkeypatch: pytest.MonkeyPatch) -> None:
    written = yaml.safe_load(dump_recipe(check_recipe(DATA | {"preset": "paper"})))
    later = {"paper": {"model": {"padding": "reflect"}}}
    monkeypatch.setattr("ppl.pipeline.presets.PRESETS", later)
    assert drawn(check_recipe(written)) == ("zeros", "average", "all")


@pytest.mark.parametrize("name", ["papr", 3])
def test_an_unknown_preset_is_refused(name: object) -> None:
    with pytest.raises(PPLValueError, match="no preset named"):
        check_recipe(DATA | {"preset": name})


def test_every_preset_holds_keys_of_a_recipe() -> None:
    for name in PRESETS:
        assert check_recipe(DATA | {"preset": name}).preset == name
