"""The script that writes the table of docs/backbones.md."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest
import timm

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def script() -> ModuleType:
    path = ROOT / "benchmarks" / "backbones" / "support_table.py"
    spec = importlib.util.spec_from_file_location("support_table", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look up their module
    spec.loader.exec_module(module)
    return module


def test_the_table_resumes_and_counts(script: ModuleType, tmp_path: Path) -> None:
    page, state = tmp_path / "backbones.md", tmp_path / "rows.jsonl"
    first = script.support_table(page, names=["test_resnet"], state=state, speed=False, progress=False)
    assert len(state.read_text().splitlines()) == 1
    rows = script.support_table(page, names=["test_resnet", "gmlp_ti16_224"], state=state, progress=False)
    assert rows[1] == first[0] or rows[0] == first[0]
    text = page.read_text()
    assert "1 of 2 variants can be cut" in text
    assert "| resnet | test_resnet | 1 | `act1`, `layer1`, `layer2`, `layer3` | NCHW | 32 | yes |" in text
    assert "matrix of fixed size" in text


def test_the_rest_of_the_page_stays_as_it_was(script: ModuleType, tmp_path: Path) -> None:
    page, state = tmp_path / "page.md", tmp_path / "rows.jsonl"
    page.write_text("# Above\n\n<!-- begin variants -->\nold\n<!-- end variants -->\n\nBelow\n")
    for _ in range(2):  # The second run starts from the output of the first.
        script.support_table(page, names=["gmlp_ti16_224"], state=state, speed=False, progress=False)
        text = page.read_text()
        assert text.startswith("# Above\n\n<!-- begin variants -->\n") and "old" not in text
        assert text.endswith("\n<!-- end variants -->\n\nBelow\n")
        assert text.count("gmlp_ti16_224") == 1


def test_all_variants_are_models_of_timm(script: ModuleType) -> None:
    known = set(timm.list_models())
    assert len(script.variants()) == 141
    assert {name for _, name in script.variants()} <= known
