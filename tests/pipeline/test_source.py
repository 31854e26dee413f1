"""What a command is pointed at, and what a run folder says of its recipe."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from ppl.pipeline import check_recipe, default_out, resolve_recipe
from ppl.pipeline.recipe_file import dump_recipe

RECIPE = "data: {root: .}\ntrain: {epochs: 3}\n"


def test_a_data_set_with_a_recipe_is_no_run_folder(creatures: Path, tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    recipe, folder = resolve_recipe(tmp_path)
    assert folder is None
    assert recipe.train.epochs == 3
    assert recipe.data.root.resolve() == tmp_path.resolve()
    assert tmp_path.resolve() not in default_out(recipe).resolve().parents


@pytest.mark.parametrize("sign", ["manifest.json", "metrics.jsonl"])
def test_a_run_that_has_begun_is_continued(tmp_path: Path, sign: str) -> None:
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    (tmp_path / sign).write_text("{}")
    recipe, folder = resolve_recipe(tmp_path, ["train.epochs=5"])
    assert folder == tmp_path and recipe.train.epochs == 5


@pytest.mark.parametrize("asked", [{}, {"train": "train"}, {"val": "valid"}, {"train": None}])
def test_a_written_recipe_sets_only_the_splits_that_the_recipe_sets(creatures: Path, asked: dict[str, str]) -> None:
    recipe = check_recipe({"data": {"root": str(creatures), **asked}})
    again = check_recipe(yaml.safe_load(dump_recipe(recipe)))
    assert again.model_dump() == recipe.model_dump()
    assert {"train", "val"} & again.data.model_fields_set == set(asked)
