"""Plugins: modules that a recipe names are imported, and only if the user says so."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ppl.errors import PPLError, PPLFileNotFoundError, PPLValueError
from ppl.io.fingerprint import source_hash
from ppl.pipeline import import_plugins


@pytest.fixture(autouse=True)
def clean_imports() -> Iterator[None]:
    """Forget the modules and the folders that a test has added."""
    modules, paths = set(sys.modules), list(sys.path)
    yield
    for name in set(sys.modules) - modules:
        del sys.modules[name]
    sys.path[:] = paths


def test_a_module_beside_the_recipe_is_imported_once(tmp_path: Path) -> None:
    (tmp_path / "counting_plugin.py").write_text("import sys\nsys.counted = getattr(sys, 'counted', 0) + 1\n")
    for _ in range(2):
        import_plugins(["counting_plugin"], [tmp_path])
    assert sys.__dict__.pop("counted") == 1


def test_a_module_in_a_package_is_imported(tmp_path: Path) -> None:
    (tmp_path / "my_parts").mkdir()
    (tmp_path / "my_parts" / "losses.py").write_text("value = 1\n")
    import_plugins(["my_parts.losses"], [tmp_path])
    assert sys.modules["my_parts.losses"].value == 1


def test_a_folder_without_the_plugin_does_not_join_the_path(tmp_path: Path) -> None:
    import_plugins(["json"], [tmp_path])
    assert str(tmp_path.resolve()) not in sys.path


def test_a_missing_module_names_the_places(tmp_path: Path) -> None:
    with pytest.raises(PPLFileNotFoundError, match=rf"no plugin 'nowhere_plugin' in {tmp_path.resolve()}, sys\.path"):
        import_plugins(["nowhere_plugin"], [tmp_path])


def test_a_module_that_another_one_hides_is_named(tmp_path: Path) -> None:
    (tmp_path / "json.py").touch()
    with pytest.raises(PPLValueError, match="rename your module"):
        import_plugins(["json"], [tmp_path])


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("import no_such_package", "No module named 'no_such_package'"),
        ("1 / 0", "ZeroDivisionError"),
        ("def f(:", "SyntaxError"),
    ],
)
def test_a_faulty_module_is_told_in_one_error(tmp_path: Path, source: str, told: str) -> None:
    (tmp_path / "faulty_plugin.py").write_text(source)
    with pytest.raises(PPLError, match=f"plugin 'faulty_plugin' cannot be imported: {told}"):
        import_plugins(["faulty_plugin"], [tmp_path])


def test_parts_of_a_plugin_have_the_hash_of_its_file(tmp_path: Path) -> None:
    file = tmp_path / "hashed_plugin.py"
    file.write_text("def refine(): ...\n")
    import_plugins(["hashed_plugin"], [tmp_path])
    before = source_hash(sys.modules["hashed_plugin"].refine)
    file.write_text("def refine(): return 1\n")
    assert before is not None and source_hash(sys.modules["hashed_plugin"].refine) != before
    assert source_hash(len) is None
