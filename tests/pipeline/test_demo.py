from __future__ import annotations

from pathlib import Path

import pytest

from ppl.data import make_creatures
from ppl.pipeline import demo, demo_recipe


def test_the_demo_needs_no_download_and_compares_with_the_plain_cam(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = {}

    def fewer(root: Path, **arguments: int) -> Path:
        asked.update(arguments)
        return make_creatures(root, train=4, val=2, size=48, seed=arguments["seed"])

    monkeypatch.setattr(demo, "make_creatures", fewer)
    recipe = demo_recipe(tmp_path, seed=3)
    assert recipe.model.pretrained is False and recipe.model.checkpoint_path is None
    assert (recipe.model.mode, recipe.compare) == ("progressive", ["baseline"])
    assert (recipe.train.seed, asked["seed"]) == (3, 3)
    assert recipe.train.size == (asked["size"], asked["size"])
    assert recipe.data.root == tmp_path / "creatures"
