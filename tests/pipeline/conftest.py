"""One small run on a few creatures, shared by the tests that only look at it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from ppl.data import make_creatures
from ppl.pipeline import Recipe, RunResult, check_recipe, run_recipe


@pytest.fixture(scope="session")
def creatures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_creatures(tmp_path_factory.mktemp("creatures") / "set", train=8, val=4, size=64)


def _recipe(root: Path, **changes: object) -> Recipe:
    content: dict[str, object] = {
        "data": {"root": str(root)},
        "preset": None,
        "model": {"backbone": "test_resnet", "mode": "progressive", "cuts": ["layer2"], "pretrained": False},
        "train": {"epochs": 1, "batch_size": 4, "size": [64, 64], "num_workers": 0},
        "cam": {"scales": [1.0], "batch_size": 2},
        "refine": [{"crf": {"preset": "psa", "iterations": 1}}],
        "segment": None,
        "faithfulness": 0,
        "device": "cpu",
        "num_workers": 1,
    }
    return check_recipe(content | changes)


@pytest.fixture(scope="session")
def tiny_recipe() -> Callable[..., Recipe]:
    """`tiny_recipe(root, **changes)`: a recipe that a test can afford."""
    return _recipe


@pytest.fixture(scope="session")
def finished(creatures: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, RunResult]:
    out = tmp_path_factory.mktemp("run") / "run"
    return out, run_recipe(_recipe(creatures, compare=["baseline"]), out, progress=False)


@pytest.fixture
def copied(finished: tuple[Path, RunResult], tmp_path: Path) -> Path:
    """A finished run that a test may change."""
    return Path(shutil.copytree(finished[0], tmp_path / "copied"))
